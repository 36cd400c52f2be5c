"""LPIPS (Zhang et al., 2018), version 0.1 on AlexNet: the user's AlexNet file and the linear layers that torchmetrics brings."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError

BATCH = 16
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1, 1]


class Lpips:
    """Perceptual distance of pictures. `path` is torchvision's `alexnet-owt-*.pth`; UserError where it is not, or torchmetrics lacks."""

    def __init__(self, path: Path) -> None:
        self._stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU()),
                nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU()),
                nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU()),
            ]
        )
        convolutions = [layer for layer in self._stages.modules() if isinstance(layer, nn.Conv2d)]
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            for number, layer in zip((0, 3, 6, 8, 10), convolutions):
                layer.load_state_dict({key: weights[f"features.{number}.{key}"] for key in ("weight", "bias")})
        except Exception as error:
            kind = type(error).__name__
            raise UserError(f"--lpips {path} cannot be used ({kind}); it must be torchvision's alexnet-owt-*.pth.") from None
        try:
            with resources.as_file(resources.files("torchmetrics.functional.image") / "lpips_models" / "alex.pth") as file:
                heads = torch.load(file, map_location="cpu", weights_only=True)
        except (ImportError, OSError):
            raise UserError(f"--lpips {path} needs torchmetrics, which is not installed; pip install torchmetrics.") from None
        self._heads = [heads[f"lin{i}.model.1.weight"] for i in range(len(self._stages))]  # each [1, C, 1, 1]

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray, truth: np.ndarray) -> float:
        """Mean distance over two stacks of pictures uint8 [N, S, S, 3], S at least 64; 0 where they are equal."""
        distances = []
        for start in range(0, len(pictures), BATCH):
            a, b = (_tensor(stack[start : start + BATCH]) for stack in (pictures, truth))
            total = torch.zeros(len(a))
            for stage, head in zip(self._stages, self._heads):
                a, b = stage(a), stage(b)
                total += F.conv2d((_unit(a) - _unit(b)).square(), head).mean((1, 2, 3))
            distances.append(total)
        return float(torch.cat(distances).mean())


def _unit(features: Tensor) -> Tensor:
    """Of length one over the channels [B, C, h, w]."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-8)


def _tensor(pictures: np.ndarray) -> Tensor:
    image = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
