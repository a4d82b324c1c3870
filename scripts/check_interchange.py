"""Runs docs/interchange.md: writes its pipeline, calls its commands, runs its Python, in a fresh folder.

Usage: python scripts/check_interchange.py PROGRAM FOLDER
Needs numpy, pillow, safetensors, onnxruntime and scikit-learn. What needs torch runs where it is installed.
"""

import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
from PIL import Image

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "interchange.md"


def draw(folder, per_class, seed):
    """Stripes of three directions with noise, 32 by 32 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32]
    for name, along in [("across", x), ("diagonal", x + y), ("down", y)]:
        path = folder / name
        path.mkdir(parents=True)
        for idx in range(per_class):
            wave = 128 + 60 * np.sin(along * 0.6 + rng.uniform(0, 6))
            pixels = wave[:, :, None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 25, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path / f"{idx:03}.png")


def main():
    program, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True)
    os.chdir(folder)
    # A project of its own, wherever the folder lies.
    pathlib.Path(".simsiam-pipe").mkdir()
    draw(pathlib.Path("data/train"), 40, 1)
    draw(pathlib.Path("data/test"), 20, 2)
    left_out = 0
    for kind, block in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S):
        if kind == "yaml" and block.startswith("version:"):
            pathlib.Path("pipelines").mkdir()
            pathlib.Path("pipelines/pictures.yaml").write_text(block)
        elif kind == "console":
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "))
                print("$", *words, flush=True)
                subprocess.run([program, *words[1:]], check=True, stdout=subprocess.DEVNULL)
        elif kind == "python":
            if "torch" in block and not importlib.util.find_spec("torchvision"):
                left_out += 1
                continue
            print(f"python: {block.splitlines()[1]}", flush=True)
            exec(compile(block, PAGE.name, "exec"), {})
    if pathlib.Path("torchvision.safetensors").exists():
        text = pathlib.Path("pipelines/pictures.yaml").read_text()
        text = text.replace("{ resnet18: {} }", "{ resnet18: {} }\n      init: torchvision.safetensors")
        pathlib.Path("pipelines/pictures.yaml").write_text(text)
        subprocess.run([program, "run", "--stage", "pretrain"], check=True)
    print(f"docs/interchange.md holds; {left_out} blocks left out for want of torch")


main()
