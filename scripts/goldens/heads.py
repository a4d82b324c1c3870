#!/usr/bin/env python3
"""Writes tests/golden/heads/heads.safetensors: projector, predictor and loss of two views in PyTorch.

Needs torch and safetensors. Run from the repository root.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

N, FEATURES, HIDDEN, DIM, BOTTLENECK = 6, 5, 7, 8, 3

torch.manual_seed(11)
projector = nn.Sequential(
    nn.Linear(FEATURES, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
    nn.Linear(HIDDEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
    nn.Linear(HIDDEN, DIM, bias=False), nn.BatchNorm1d(DIM, affine=False),
)
predictor = nn.Sequential(
    nn.Linear(DIM, BOTTLENECK, bias=False), nn.BatchNorm1d(BOTTLENECK), nn.ReLU(), nn.Linear(BOTTLENECK, DIM),
)
with torch.no_grad():
    for module in [*projector, *predictor]:
        if isinstance(module, nn.BatchNorm1d) and module.affine:
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)

out = {f"before.projector.{k}": v.clone() for k, v in projector.state_dict().items()}
out |= {f"before.predictor.{k}": v.clone() for k, v in predictor.state_dict().items()}
h1, h2 = (torch.randn(N, FEATURES, requires_grad=True) for _ in range(2))
z1, z2 = projector(h1), projector(h2)
p1, p2 = predictor(z1), predictor(z2)
t1, t2 = z1.detach(), z2.detach()
loss = -(F.cosine_similarity(p1, t2).mean() + F.cosine_similarity(p2, t1).mean()) / 2
loss.backward()
out |= {f"after.projector.{k}": v.clone() for k, v in projector.state_dict().items()}
out |= {f"after.predictor.{k}": v.clone() for k, v in predictor.state_dict().items()}
out |= {f"grad.projector.{k}": v.grad for k, v in projector.named_parameters()}
out |= {f"grad.predictor.{k}": v.grad for k, v in predictor.named_parameters()}
out |= {"h1": h1.detach(), "h2": h2.detach(), "z1": t1, "p1": p1.detach(), "loss": loss.detach(),
        "grad.h1": h1.grad, "grad.h2": h2.grad,
        "embedding_std": F.normalize(t1, dim=1).std(0).mean()}
projector.eval(), predictor.eval()
out["p1.frozen"] = predictor(projector(h1)).detach()
save_file({k: v.contiguous() for k, v in out.items()}, "tests/golden/heads/heads.safetensors")
