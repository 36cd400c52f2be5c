"""What the lips teacher and the lips encoder see of a frame, disguised, so that the lips vector can carry the lips' shape only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flashlips_edge.models.lips import FACE_SIZE, MOUTH_BOX, MOUTH_SIZE


def look(lower: Tensor, face: Tensor, strength: float = 1.0, face_size: int | None = FACE_SIZE) -> tuple[Tensor, Tensor]:
    """face [B, 3, E, E] and mouth [B, 3, 64, 64] out of lower [B, 3, H, S] and face, both in [0, 1]: shifted, scaled and
    coloured at random (torch's own random numbers). ``strength`` 0 gives the plain views; E is ``face_size``, None: as given."""
    b, _, height, size = lower.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(b, *shape, device=lower.device)

    shift, zoom = 0.02 * strength * normal(2), 1 + 0.04 * strength * normal()
    face_view = _sample(face, shift, zoom, (0.0, 1.0, 0.0, 1.0), face_size or face.shape[-1], 1.0, 0.0)
    mouth_view = _sample(lower, shift, zoom, MOUTH_BOX, MOUTH_SIZE, size / height, (size - height) / size)
    if strength:
        gain, bias = 1 + 0.12 * normal(3, 1, 1), 0.05 * normal(3, 1, 1)
        face_view, mouth_view = face_view * gain + bias, mouth_view * gain + bias
    return face_view, mouth_view


def _sample(
    image: Tensor, shift: Tensor, zoom: Tensor, box: tuple[float, float, float, float], size: int, stretch: float, start: float
) -> Tensor:
    """Sample a box (crop units) out of ``image``, whose rows cover the crop from ``start`` on, 1/stretch of its height."""
    top, bottom, left, right = box
    line = (torch.arange(size, device=image.device) + 0.5) / size
    y = top + (bottom - top) * line
    x = left + (right - left) * line
    y = (y[None] - 0.5) * zoom[:, None] + 0.5 + shift[:, :1]  # [B, size] in crop units
    x = (x[None] - 0.5) * zoom[:, None] + 0.5 + shift[:, 1:]
    grid = torch.stack([(2 * x - 1)[:, None, :].expand(-1, size, -1), (2 * (y - start) * stretch - 1)[:, :, None].expand(-1, -1, size)], -1)
    return F.grid_sample(image, grid.to(image), align_corners=False, padding_mode="border")
