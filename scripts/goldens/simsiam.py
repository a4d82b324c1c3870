#!/usr/bin/env python3
"""Writes tests/golden/simsiam/<network>.json: one SimSiam step and ten SGD steps in PyTorch.

Weights and inputs come from a formula that the test repeats, so only results are stored: the loss and
embedding_std of the first step, for each parameter the norm of its gradient and some of its elements, and the
losses of ten steps in double precision with the cosine schedule and a fixed predictor rate.

Needs torch, torchvision and numpy. Run from the repository root.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

BATCH, SIZE, STEPS = 32, 32, 10
HIDDEN, DIM, BOTTLENECK = 64, 48, 24
LR, MOMENTUM, DECAY = 0.05, 0.9, 5e-4
SAMPLES = 24
SHIFT = 4.0


def fnv1a(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def formula(name, count):
    """Numbers in [-1, 1): splitmix64 of (FNV-1a of the name + the index)."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0).astype(np.float32)


def fill(name, tensor):
    x = torch.from_numpy(formula(name, tensor.numel())).reshape(tensor.shape)
    if name.endswith("running_var"):
        return torch.ones_like(tensor)
    if name.endswith("running_mean"):
        return torch.zeros_like(tensor)
    if tensor.dim() == 4:
        return x * np.float32(math.sqrt(6.0 / (tensor.shape[0] * tensor.shape[2] * tensor.shape[3])))
    if tensor.dim() == 2:
        return x * np.float32(1.0 / math.sqrt(tensor.shape[1]))
    if name == "predictor.3.bias":
        return x * np.float32(0.1)
    if name.endswith("bias"):
        # Far from 0, so that rounding flips no ReLU: one flip changes a gradient by more than all rounding does.
        return x * np.float32(0.1) + np.float32(SHIFT)
    return x * np.float32(0.1) + np.float32(1.0)


def images(name):
    """Noise with a level and a strength of its own for each image and channel, [n, 3, size, size]."""
    noise = torch.from_numpy(formula(name, BATCH * SIZE * SIZE * 3)).reshape(BATCH, SIZE, SIZE, 3)
    level = torch.from_numpy(formula(name + ".level", BATCH * 3)).reshape(BATCH, 1, 1, 3)
    return (noise * (level * 0.5 + 1.0) + level).permute(0, 3, 1, 2).contiguous()


def main():
    backbone = torchvision.models.resnet18(weights=None)
    features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    model = nn.ModuleDict({
        "backbone": backbone,
        "projector": nn.Sequential(
            nn.Linear(features, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, DIM, bias=False), nn.BatchNorm1d(DIM, affine=False)),
        "predictor": nn.Sequential(
            nn.Linear(DIM, BOTTLENECK, bias=False), nn.BatchNorm1d(BOTTLENECK), nn.ReLU(), nn.Linear(BOTTLENECK, DIM)),
    })
    model.double()
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(fill(name, tensor))
    groups = [dict(params=[*model["backbone"].parameters(), *model["projector"].parameters()], fixed=False),
              dict(params=list(model["predictor"].parameters()), fixed=True)]
    sgd = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    out = {"losses": [], "gradients": {}}
    for step in range(STEPS):
        for group in sgd.param_groups:
            group["lr"] = LR if group["fixed"] else LR * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        shared, own = images("x1").double(), images("x2").double()
        x1, x2 = shared, shared * 0.9 + own * 0.2
        z1, z2 = (model["projector"](model["backbone"](x)) for x in (x1, x2))
        p1, p2 = model["predictor"](z1), model["predictor"](z2)
        loss = -(F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()) / 2
        sgd.zero_grad()
        loss.backward()
        if step == 0:
            out["embedding_std"] = F.normalize(z1.detach(), dim=1).std(0).mean().item()
            for name, parameter in model.named_parameters():
                grad = parameter.grad.flatten()
                stride = max(1, grad.numel() // SAMPLES)
                out["gradients"][name] = {
                    "norm": grad.double().norm().item(),
                    "samples": [float(f"{v:.7g}") for v in grad[::stride][:SAMPLES].tolist()],
                }
        sgd.step()
        out["losses"].append(loss.item())
    folder = Path("tests/golden/simsiam")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resnet18.json").write_text(json.dumps(out, indent=0) + "\n")
    print(out["losses"], out["embedding_std"])


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
