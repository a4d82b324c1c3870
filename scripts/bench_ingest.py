#!/usr/bin/env python3
"""How fast a folder of photographs becomes a dataset: simsiam-pipe against Pillow with as many processes as threads.

Pillow reads, decodes, scales the shorter side (bilinear, antialiased) and each process appends the pixels to a file of
its own, which is what `ingest` does. Both take turns; the fastest pass of each counts. Needs Pillow.

    scripts/bench_ingest.py --ours target/release/simsiam-pipe --images data/photos
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess
import tempfile
import time

from PIL import Image

EXTENSIONS = {".jpg", ".jpeg", ".png"}


def scale(size, side):
    """As torchvision's `Resize(side)`."""
    width, height = size
    short = min(size)
    return size if short <= side else (int(side * width / short), int(side * height / short))


def store(job):
    files, side, out = job
    with open(out, "wb") as target:
        for file in files:
            with Image.open(file) as image:
                image = image.convert("RGB")
                size = scale(image.size, side)
                if size != image.size:
                    image = image.resize(size, Image.Resampling.BILINEAR)
                target.write(image.tobytes())
    return len(files)


def pillow(pool, files, options):
    with tempfile.TemporaryDirectory() as folder:
        share = -(-len(files) // options.threads)
        jobs = [
            (files[start : start + share], options.shorter_side, os.path.join(folder, str(start)))
            for start in range(0, len(files), share)
        ]
        began = time.perf_counter()
        done = sum(pool.map(store, jobs))
        return done / (time.perf_counter() - began)


def ours(options):
    args = [options.ours, "bench", "ingest", "--images", options.images, "--shorter-side", str(options.shorter_side)]
    args += ["--threads", str(options.threads), "--steps", "1", "--json"]
    done = subprocess.run(args, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="path of simsiam-pipe")
    parser.add_argument("--images", required=True, help="a folder of photographs")
    parser.add_argument("--shorter-side", type=int, default=72)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = sorted(str(path) for path in pathlib.Path(options.images).rglob("*") if path.suffix.lower() in EXTENSIONS)
    mine, theirs = [], []
    with multiprocessing.Pool(options.threads) as pool:
        for _ in range(options.rounds):
            mine.append(ours(options))
            theirs.append(pillow(pool, files, options))
    ratio = max(mine) / max(theirs)
    print(f"{len(files)} images: simsiam-pipe {max(mine):.0f} images/s, Pillow {max(theirs):.0f} images/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
