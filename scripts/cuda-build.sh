#!/usr/bin/env bash
# Builds the program with its engine for NVIDIA GPUs: `bash scripts/cuda-build.sh [ARGUMENTS OF CARGO BUILD]`.
#
# The build needs neither toolkit nor GPU. At run time the driver comes with the GPU; CUDA's run-time compiler (NVRTC)
# comes with a toolkit or, where there is none, is fetched here from the Python package into target/cuda-env.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
  set -- --release
fi
cargo build --features cuda "$@"

if ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so' || ls /usr/local/cuda/lib64/libnvrtc.so* >/dev/null 2>&1; then
  echo "NVRTC: the system's" >&2
else
  if [ ! -x target/cuda-env/bin/python ]; then
    python3 -m venv target/cuda-env
  fi
  target/cuda-env/bin/pip install -q --disable-pip-version-check nvidia-cuda-nvrtc
  library=$(find "$PWD/target/cuda-env" -name 'libnvrtc.so.*' | head -n 1)
  if [ -z "$library" ]; then
    echo "the package nvidia-cuda-nvrtc holds no libnvrtc" >&2
    exit 1
  fi
  echo "NVRTC: run the program with LD_LIBRARY_PATH=$(dirname "$library")" >&2
fi
