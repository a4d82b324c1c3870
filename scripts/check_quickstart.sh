#!/usr/bin/env bash
# Checks what the quickstart promises, after it has run twice: check_quickstart.sh BINARY OUTPUT_OF_THE_SECOND_RUN
set -euo pipefail
binary=$1 second_run=$2

grep -q ' 0 ran, 8 restored' "$second_run" || { echo "the second run executed something" >&2; exit 1; }

# The probe on the pretrained backbone beats an untrained one and raw pixels.
metric() {
  "$binary" metrics pipelines/quickstart.yaml --json | tr -d ' \n' |
    sed -n "s|.*\"metric\":\"$1\",\"value\":\([-0-9.e]*\).*|\1|p"
}
top1=$(metric linear_probe/top1)
for baseline in untrained raw_pixels; do
  other=$(metric "linear_probe/${baseline}_top1")
  awk -v a="$top1" -v b="$other" 'BEGIN { exit !(a != "" && b != "" && a > b + 0.05) }' ||
    { echo "the probe reaches $top1, $baseline reaches $other" >&2; exit 1; }
  echo "linear probe: $top1, $baseline: $other"
done
test -s runs/quickstart/report.html
