"""Runs docs/interchange.md: writes its pipeline, calls its commands, runs its Python, in a fresh folder. Then takes every
other network with every kind of classifier to onnxruntime and torchvision.

Usage: python scripts/check_interchange.py PROGRAM FOLDER
Needs numpy, pillow, safetensors, onnxruntime and scikit-learn. What needs torch runs where torchvision is installed.
"""

import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import onnxruntime
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


NETWORKS = {
    "resnet18_cifar": "{ resnet18: { stem: cifar } }",
    "resnet34": "{ resnet34: {} }",
    "resnet34_cifar": "{ resnet34: { stem: cifar } }",
    "resnet50": "{ resnet50: {} }",
    "resnet50_cifar": "{ resnet50: { stem: cifar } }",
    "darknet_tiny": "{ darknet_tiny: {} }",
}
# Every network with every kind of classifier; `INIT` is where weights from outside come in.
NETWORKS_PIPELINE = """version: 1
name: networks
stages:
  train: {{ uses: ingest, with: {{ source: {{ image_folder: small/train }} }} }}
  test: {{ uses: ingest, with: {{ source: {{ image_folder: small/test }} }} }}
  views: {{ uses: augment, with: {{ image_size: 32, evaluation: squash, ops: [{{ random_resized_crop: {{}} }}] }} }}
{pretrainings}
  embeddings:
    uses: extract
    matrix: {{ encoder: [{names}] }}
    inputs: {{ encoder: "${{matrix.encoder}}", train: train, test: test }}
    with: {{ baselines: [] }}
  probe: {{ uses: fit, inputs: {{ embeddings: embeddings }}, with: {{ linear_probe: {{ l2: 0.01, scaling: l2_normalize }} }} }}
  knn: {{ uses: fit, inputs: {{ embeddings: embeddings }}, with: {{ knn: {{ k: 5 }} }} }}
  tuned:
    uses: fit
    matrix: {{ encoder: [{names}] }}
    inputs: {{ encoder: "${{matrix.encoder}}", train: train, test: test }}
    with: {{ fine_tune: {{ layers: {{ last_blocks: 1 }}, train: {{ epochs: 1, batch_size: 8 }} }} }}
"""
NETWORK_STAGE = """  {name}:
    uses: pretrain
    inputs: {{ dataset: train, augmentation: views }}
    with:
      backbone: {backbone}{init}
      projector: {{ hidden_dim: 16, output_dim: 16, num_layers: 2 }}
      predictor: {{ hidden_dim: 8 }}
      optimizer: {{ sgd: {{ base_lr: {lr} }} }}
      epochs: 1
      batch_size: 8
"""


def call(program, *words):
    print("$", "simsiam-pipe", *words, flush=True)
    return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def write_networks(file, init="", lr=0.05):
    """A pipeline with a pretraining for each network, whose weights begin with `init` where it is given."""
    stages = [
        NETWORK_STAGE.format(name=name, backbone=backbone, init=init.format(name=name), lr=lr)
        for name, backbone in NETWORKS.items()
        if not init or name != "darknet_tiny"
    ]
    text = NETWORKS_PIPELINE.format(pretrainings="".join(stages), names=", ".join(NETWORKS))
    pathlib.Path(file).write_text(text if not init else text[: text.index("  embeddings:")])


def close(what, ours, theirs):
    """Within 1e-4 of the largest value, or of 1."""
    worst = np.abs(ours - theirs).max() / max(1, np.abs(ours).max())
    print(f"  {what}: {worst:.1e}")
    assert ours.shape == theirs.shape and worst < 1e-4, what


def torchvision_network(name):
    """torchvision's network without its classifier, with the stem that the name says."""
    import torch, torchvision

    network = getattr(torchvision.models, name.removesuffix("_cifar"))()
    network.fc = torch.nn.Identity()
    if name.endswith("_cifar"):
        network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = torch.nn.Identity()
    return network


def check_networks(program, with_torch):
    """Every other network and stem, with every kind of classifier, in onnxruntime and, where it is there, torchvision."""
    draw(pathlib.Path("small/train"), 8, 3)
    draw(pathlib.Path("small/test"), 3, 4)
    write_networks("pipelines/networks.yaml")
    call(program, "run", "-q", "pipelines/networks.yaml")
    files = sorted(map(str, pathlib.Path("small/test").glob("*/*.png")))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    for name in NETWORKS:
        call(program, "embed", "--model", f"runs/networks/{name}", "small/test", "--out", "own.npy")
        features = np.load("own.npy")
        card = json.loads(pathlib.Path(f"runs/networks/{name}/encoder.json").read_text())
        stats = card["preprocessing"]["channel_stats"]
        images = ((pixels / 255 - stats["mean"]) / stats["std"]).astype("float32").transpose(0, 3, 1, 2)
        for stage in [name, *(f"{kind}@encoder={name}" for kind in ["probe", "knn", "tuned"])]:
            artifact = f"runs/networks/{stage}"
            call(program, "export", artifact, "--format", "onnx", "--to", "network.onnx")
            session = onnxruntime.InferenceSession("network.onnx")
            # The batch is free: one, some, all.
            for batch in [images[:1], images[2:5], images]:
                outputs = session.run(None, {"images": batch})
                assert all(len(output) == len(batch) for output in outputs)
            if not stage.startswith("tuned"):
                close(f"{stage} features", features, outputs[0])
            if stage == name:
                continue
            classes = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
            lines = call(program, "predict", "--model", artifact, "--json", "--top", "9", "small/test").splitlines()
            rows = [{p["class"]: p["probability"] for p in json.loads(line)["predictions"]} for line in lines]
            close(f"{stage} probabilities", np.array([[row[c] for c in classes] for row in rows]), outputs[1])
        if with_torch and name != "darknet_tiny":
            import torch
            from safetensors.torch import load_file, save_file

            network = torchvision_network(name)
            save_file(network.state_dict(), f"torchvision_{name}.safetensors")
            network.load_state_dict(load_file(f"runs/networks/{name}/encoder.safetensors"), strict=True)
            with torch.no_grad():
                close(f"{name} torchvision", features, network.eval()(torch.tensor(images)).numpy())
    if with_torch:
        check_init(program)


def check_init(program):
    """torchvision's weights at a rate of 0 come out as they went in; only running statistics move."""
    from safetensors.numpy import load_file

    write_networks("pipelines/networks.yaml", "\n      init: torchvision_{name}.safetensors", 0.0)
    call(program, "run", "-q", "pipelines/networks.yaml")
    for name in NETWORKS:
        if name != "darknet_tiny":
            before = load_file(f"torchvision_{name}.safetensors")
            after = load_file(f"runs/networks/{name}/encoder.safetensors")
            assert before.keys() == after.keys()
            for key in before:
                assert (before[key] == after[key]).all() or ".running_" in key or key.endswith("tracked"), key


def main():
    program, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True)
    os.chdir(folder)
    # A project of its own, wherever the folder lies.
    pathlib.Path(".simsiam-pipe").mkdir()
    draw(pathlib.Path("data/train"), 40, 1)
    draw(pathlib.Path("data/test"), 20, 2)
    with_torch = importlib.util.find_spec("torchvision") is not None
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
            if "torch" in block and not with_torch:
                left_out += 1
                continue
            print(f"python: {block.splitlines()[1]}", flush=True)
            exec(compile(block, PAGE.name, "exec"), {})
    if pathlib.Path("torchvision.safetensors").exists():
        text = pathlib.Path("pipelines/pictures.yaml").read_text()
        text = text.replace("{ resnet18: {} }", "{ resnet18: {} }\n      init: torchvision.safetensors")
        pathlib.Path("pipelines/pictures.yaml").write_text(text)
        subprocess.run([program, "run", "--stage", "pretrain"], check=True)
    check_networks(program, with_torch)
    print(f"docs/interchange.md holds; {left_out} blocks left out for want of torch")


main()
