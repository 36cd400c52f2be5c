"""The operations that no layer stands for: the flow's step and integration, and what happens to a frame around the networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import kernels.flow_step.reference
import kernels.paste_back.reference
import kernels.warp_crop.reference
from flashlips_edge.media.colour import Colour
from kernels.bench.cases import Case, evaluations, materialise, randomise
from kernels.flow_integrate.kernel import flow_integrate
from kernels.flow_integrate.weights import conditions_of, pack
from kernels.flow_step.kernel import flow_step
from kernels.paste_back.kernel import paste_back
from kernels.shapes import meta_networks
from kernels.warp_crop.kernel import warp_crop

FRAME = (1080, 1920)  # height and width
FACE = 400  # side of the face's square in the frame, pixels
COLOURS = {"RGB": None, "NV12": Colour.default(FRAME[1], FRAME[0])}


def function_cases(preset: dict[str, Any], batch: int, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Each function at the preset's sizes: one window of speech, or `batch` frames of 1080 lines."""
    yield from _flow(preset, device, dtype)
    for layout, colour in COLOURS.items():
        yield from _frames(preset["crop_size"], batch, layout, colour, device, dtype)


def _flow(preset: dict[str, Any], device: str, dtype: torch.dtype) -> Iterator[Case]:
    network, inputs = meta_networks(preset, 1)["audio_to_lips"]
    model: Any = materialise(network, device, dtype)
    noise, speech, emotion, reference_lips, previous_lips = randomise(inputs, device, dtype)
    keep = torch.tensor([1, 0], device=device, dtype=dtype)
    twice = [torch.cat([each, each]) for each in (speech, emotion, reference_lips, previous_lips)]
    before, condition = model.context(*twice, keep, torch.ones_like(keep))
    shape = "x".join(str(n) for n in noise.shape)
    size = torch.finfo(dtype).bits // 8

    velocities = torch.randn(2, *noise.shape[1:], device=device).to(dtype)
    step = (noise, velocities, 0.1, model.step.guidance, model.enter.weight, model.enter.bias, before, model.position)
    moved = sum(x.numel() for x in step if isinstance(x, Tensor)) + noise.numel() + before.shape[0] * model.position.numel()
    yield Case(
        "flow_step",
        shape,
        lambda: kernels.flow_step.reference.flow_step(*step),
        lambda: flow_step(*step),
        lambda: kernels.flow_step.reference.flow_step(*(x.double() if isinstance(x, Tensor) else x for x in step)),
        flops=2 * noise.numel() * model.position.shape[-1],
        bytes=moved * size,
    )

    weights, conditions = pack(model), conditions_of(model, condition)
    heads = model.layers[0].attention.heads
    read = sum(p.numel() for p in model.layers.parameters())
    yield Case(
        "flow_integrate",
        shape,
        lambda: _integrate(model, noise, before, condition),
        lambda: flow_integrate(noise, before, conditions, weights, heads, model.steps, model.step.guidance, model.solver),
        lambda: _integrate(copy.deepcopy(model).double(), noise.double(), before.double(), condition.double()),
        flops=2 * read * 2 * (before.shape[1] + noise.shape[1]) * evaluations(preset),
        bytes=read * evaluations(preset) * size,
    )


def _integrate(model: Any, z: Tensor, before: Tensor, condition: Tensor) -> Tensor:
    """AudioToLips.forward between its context and its last line."""

    def velocities(z: Tensor, time: float) -> Tensor:
        return model.field(torch.cat([z, z]), torch.full_like(z[0, :2, 0], time), before, condition)

    for index in range(model.steps):
        here = velocities(z, index / model.steps)
        if model.solver == "midpoint":
            here = velocities(model.step(z, here, 0.5 / model.steps), (index + 0.5) / model.steps)
        z = model.step(z, here, 1 / model.steps)
    return z


def _frames(crop: int, batch: int, layout: str, colour: Colour | None, device: str, dtype: torch.dtype) -> Iterator[Case]:
    height, width = FRAME
    shape = (batch, height, width, 3) if colour is None else (batch, height * 3 // 2, width)
    frame = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    scale = crop / FACE
    transform = torch.tensor([[scale, 0, -scale * 700], [0, scale, -scale * 300]]).expand(batch, 2, 3).contiguous()
    picture = torch.rand(batch, 3, crop, crop, device=device).to(dtype)
    edited = torch.rand(batch, 3, crop, crop, device=device).to(dtype)
    size, name = torch.finfo(dtype).bits // 8, f"{layout} {batch}x{height}x{width} {crop}"
    yield Case(
        "warp_crop",
        name,
        None,
        lambda: warp_crop(frame, transform, crop, dtype, colour),
        lambda: kernels.warp_crop.reference.warp_crop(frame, transform, crop, colour),
        flops=0,
        bytes=frame.numel() * FACE**2 // (height * width) + picture.numel() * size,
        step=1 / 255,
        captured=False,
    )
    yield Case(
        "paste_back",
        name,
        lambda: kernels.paste_back.reference.paste_back(frame, transform, picture, edited, colour=colour),
        lambda: paste_back(frame, transform, picture, edited, colour=colour),
        lambda: kernels.paste_back.reference.paste_back(frame, transform, picture, edited, colour=colour),
        flops=0,
        bytes=2 * frame.numel() + 2 * picture.numel() * size,
        step=1,
        captured=False,
    )
