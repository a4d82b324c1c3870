#!/usr/bin/env python3
"""Writes tests/golden/fine_tune/resnet18.json: six steps of a softmax layer on torchvision's ResNet-18 in double precision.

All layers by SGD, the last two blocks by AdamW, the softmax layer alone by Adam. What is frozen is in evaluation mode.
Weights and images come from the formula of simsiam.py; stored are the losses, how far some parameters moved, and the
probabilities in evaluation mode at the end.

Needs torch, torchvision and numpy. Run from the repository root.
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from simsiam import BATCH, fill, images

CLASSES, STEPS = 4, 6
WATCHED = ["conv1.weight", "layer2.0.conv1.weight", "layer4.0.conv1.weight", "layer4.0.downsample.1.weight",
           "layer4.1.bn2.weight", "classifier.0.weight", "classifier.0.bias"]


def case(trained, optimizer):
    network = torchvision.models.resnet18(weights=None)
    features = network.fc.in_features
    network.fc = torch.nn.Identity()
    head = torch.nn.Linear(features, CLASSES)
    network.double(), head.double()
    named = {**network.state_dict(), "classifier.0.weight": head.weight.data, "classifier.0.bias": head.bias.data}
    for name, tensor in named.items():
        if tensor.is_floating_point():
            tensor.copy_(fill(name, tensor))
    start = {name: named[name].clone() for name in WATCHED}
    modules = {"all": [network], "last_blocks": [network.layer4[0], network.layer4[1]], "classifier": []}[trained]
    network.eval().requires_grad_(False)
    for module in modules:
        module.train().requires_grad_(True)
    parameters = [p for module in modules for p in module.parameters()] + list(head.parameters())
    optimizer = optimizer(parameters)
    x, labels = images("x1").double(), torch.arange(BATCH) * 7 % CLASSES
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(head(network(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        probabilities = head(network(x)).softmax(1)
    return {
        "losses": losses,
        "moved": {name: (named[name] - start[name]).norm().item() for name in WATCHED},
        "probabilities": [float(f"{p:.8g}") for p in probabilities.flatten().tolist()],
    }


def main():
    out = {
        "all_sgd": case("all", lambda p: torch.optim.SGD(p, lr=2e-5, momentum=0.9, weight_decay=5e-4)),
        "last_blocks_adamw": case(
            "last_blocks", lambda p: torch.optim.AdamW(p, lr=3e-4, eps=1e-4, weight_decay=0.05)),
        "classifier_adam": case("classifier", lambda p: torch.optim.Adam(p, lr=1e-4, weight_decay=0.01)),
    }
    folder = Path("tests/golden/fine_tune")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resnet18.json").write_text(json.dumps(out, indent=0) + "\n")
    for name, found in out.items():
        print(name, found["losses"], found["moved"])


if __name__ == "__main__":
    main()
