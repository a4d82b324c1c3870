#!/usr/bin/env python3
"""Writes tests/golden/backbone/*.safetensors: what PyTorch (float64) computes with torchvision's ResNets and with
darknet_tiny. Run from the repository root; needs torch, torchvision, safetensors.

Weights and images are not stored. Both sides compute them from a closed formula: a hash of the tensor's name and
the element's index, turned into a uniform number (`uniform` here and in src/model/backbone/golden_tests.rs).

Stored for each case, all f32: features in eval mode (before any training forward), features of two passes in
training mode, and after the backward pass of both (loss = sum of features * uniform weights, over both passes):
the norm of each parameter's gradient, 16 of its elements, and 4 elements of each running statistic.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.numpy import save_file
from torch import nn

OUT = Path("tests/golden/backbone")
NUM_SAMPLES, NUM_STATISTICS = 16, 4
MASK = np.uint64(0xFFFFFFFF)


def fnv1a(text):
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def hash32(name, idx):
    """A 32-bit hash of (name, idx): lowbias32 of idx * golden ratio + hash of the name."""
    x = (np.asarray(idx, dtype=np.uint64) * np.uint64(0x9E3779B9) + np.uint64(fnv1a(name))) & MASK
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x7FEB352D) & MASK
    x ^= x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) & MASK
    x ^= x >> np.uint64(16)
    return x


def uniform(name, shape):
    """Multiples of 2^-23 in [-1, 1): exact in f32."""
    count = int(np.prod(shape))
    return ((hash32(name, np.arange(count)) >> np.uint64(8)).astype(np.float64) / 2**23 - 1).reshape(shape)


def value(name, shape, calm):
    u = uniform(name, shape)
    if name.endswith("running_var"):
        v = 1 + 0.5 * u
    elif calm and name.endswith("bias"):
        v = np.copysign(1, u) if ".bn1." in name else np.ones(shape)
    elif calm and len(shape) == 1 and name.endswith("weight"):
        v = 0.125 * (1 + 0.25 * u)
    elif name.endswith("running_mean") or name.endswith("bias"):
        v = 0.25 * u
    elif len(shape) == 1:
        v = 1 + 0.25 * u
    else:
        v = u * np.float32(math.sqrt(6 / (shape[0] * shape[2] * shape[3])))
    return torch.from_numpy(v.astype(np.float32).astype(np.float64))


class Pointwise(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout)

    def forward(self, x):
        return nn.functional.max_pool2d(self.bn(self.conv(x)).relu(), 2)


class ResidualBlock(nn.Module):
    def __init__(self, width, channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu() + x


class DarknetTiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block1 = Pointwise(3, 128), ResidualBlock(64, 128)
        self.expand, self.block2 = Pointwise(128, 256), ResidualBlock(128, 256)
        self.reduce = Pointwise(256, 128)

    def forward(self, x):
        return self.reduce(self.block2(self.expand(self.block1(self.stem(x))))).amax((2, 3))


def network(backbone, stem):
    if backbone == "darknet_tiny":
        return DarknetTiny()
    net = getattr(torchvision.models, backbone)()
    net.fc = nn.Identity()
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net


def images(tag, n, size):
    x = 1.5 * uniform(f"images {tag}", (n, size, size, 3))
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def samples(name, values):
    flat = values.reshape(-1)
    return flat[torch.from_numpy((hash32(f"sample {name}", np.arange(NUM_SAMPLES)) % np.uint64(len(flat))).astype(np.int64))]


def case(backbone, stem, n, size, calm=False):
    """In a calm network no activation is near the kink of its ReLU: channels are on or off as a whole. Without that,
    rounding (PyTorch's own in f32, too) decides a few of the millions of ReLUs of a deep network, and gradients move
    by percents."""
    net = network(backbone, stem).double()
    state = {k: v if v.dtype == torch.int64 else value(k, tuple(v.shape), calm) for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    out = {}
    net.eval()
    with torch.no_grad():
        out["features_eval"] = net(images("a", n, size))
    net.train()
    for idx, tag in enumerate("ab"):
        features = net(images(tag, n, size))
        out[f"features_{idx}"] = features.detach()
        weights = torch.from_numpy(uniform(f"loss {tag}", tuple(features.shape)))
        (features * weights).sum().backward()
    names = [name for name, _ in net.named_parameters()]
    grads = [p.grad for _, p in net.named_parameters()]
    out["gradient_norms"] = torch.stack([g.norm() for g in grads])
    out["gradient_samples"] = torch.stack([samples(name, g) for name, g in zip(names, grads)])
    statistics = {k: v for k, v in net.state_dict().items() if "running" in k}
    out["statistics"] = torch.stack([v[:: max(1, len(v) // NUM_STATISTICS)][:NUM_STATISTICS] for v in statistics.values()])
    arrays = {k: np.ascontiguousarray(v.float().numpy()) for k, v in out.items()}
    meta = {"backbone": backbone, "stem": stem, "n": str(n), "image_size": str(size), "calm": str(calm).lower(), "parameters": json.dumps(names),
            "statistics": json.dumps(list(statistics)), "torch": torch.__version__, "torchvision": torchvision.__version__}
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(arrays, OUT / f"{backbone}_{stem}_{n}x{size}.safetensors", metadata=meta)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    case("darknet_tiny", "own", 4, 32)
    case("darknet_tiny", "own", 3, 27)
    case("resnet18", "imagenet", 5, 64, calm=True)
    case("resnet18", "cifar", 3, 19)
    for backbone in ["resnet18", "resnet34", "resnet50"]:
        case(backbone, "imagenet", 8, 33, calm=True)
        case(backbone, "cifar", 4, 16, calm=True)
