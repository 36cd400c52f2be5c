"""flow_integrate against its formula in float64, against the network itself, and its two ways of launching against each other.

Under the interpreter programs run one after the other: one program shows the waiting, and several, launched phase by phase, the sharing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.presets import load_preset
from kernels.flow_integrate import reference
from kernels.flow_integrate.integrate import integrate
from kernels.flow_integrate.kernel import flow_integrate
from kernels.flow_integrate.weights import FlowWeights, pack
from kernels.testing import DEVICE, DTYPES, TOLERANCE, assert_close, double, randn, sizes


def network(solver: str = "euler", dtype: torch.dtype = torch.float32, **changes: Any) -> AudioToLips:
    preset = {"speech_width": 8, "width": 48, "layers": 2, "heads": 2, "window": 9, "previous": 3, "references": 2, "emotions": 3}
    model = AudioToLips(**{**preset, "steps": 2, "guidance": 1.5, "solver": solver, **changes})
    for parameter in model.parameters():  # what starts at zero would hide a mistake
        torch.nn.init.normal_(parameter, std=0.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2)
    return model.to(DEVICE, dtype)


def inputs(model: AudioToLips, batch: int, dtype: torch.dtype = torch.float32, window: int = 9, previous: int = 3) -> list[Tensor]:
    speech, references = model.condition_speech.in_features, model.condition_references[0].in_features // 12
    emotions = model.condition_emotion.in_features
    shapes = (batch, window, 12), (batch, window, speech), (batch, emotions), (batch, references, 12), (batch, previous, 12)
    return [randn(*shape, dtype=dtype) for shape in shapes]


def case(model: AudioToLips, batch: int, dtype: torch.dtype) -> tuple[list[Tensor], FlowWeights]:
    length, width = model.position.shape[1:]
    evaluations = model.steps * (2 if model.solver == "midpoint" else 1)
    shapes = (batch, length - 3, 12), (2 * batch, 3, width), (evaluations, 2 * batch, length, width)
    return [randn(*shape, dtype=dtype) for shape in shapes], pack(model)


def check(model: AudioToLips, batch: int, dtype: torch.dtype, **launch: Any) -> None:
    tensors, weights = case(model, batch, dtype)
    options = model.layers[0].attention.heads, model.steps, model.step.guidance, model.solver
    got = flow_integrate(*tensors, weights, *options, **launch)
    want = reference.flow_integrate(*double(*tensors), FlowWeights(*double(*weights)), *options)
    away = (got.double() - want).abs() / (want.abs() + want.square().mean().sqrt())
    # an evaluation rounds as often as a fused layer does, and its errors add up over layers and evaluations
    assert away.max() <= TOLERANCE[dtype] * len(model.layers) * model.steps


@pytest.mark.parametrize(("solver", "dtype"), [*(("euler", dtype) for dtype in DTYPES), ("midpoint", torch.float32)])
def test_formula_in_one_launch(solver: str, dtype: torch.dtype) -> None:
    check(network(solver, dtype), 2, dtype)


def test_formula_when_programs_share_each_phase() -> None:
    check(network("midpoint"), 1, torch.float32, programs=5, together=False)


@pytest.mark.parametrize("batch", sizes([1], [1, 8]))
def test_it_gives_what_the_network_gives(batch: int) -> None:
    model = network("midpoint", guidance=2.0)
    tensors = inputs(model, batch)
    with torch.no_grad():
        want = model(*tensors)
    assert_close(integrate(model, pack(model), *tensors), want)


@pytest.mark.parametrize("name", sizes(["nano"], ["edge", "paper"]))
def test_a_preset_integrates_as_its_network(name: str) -> None:
    preset = load_preset(name)["audio_to_lips"]
    model = network(**{**preset, "steps": min(preset["steps"], 2)})
    tensors = inputs(model, 1, window=preset["window"], previous=preset["previous"])
    with torch.no_grad():
        want = model.double()(*double(*tensors))
    got = integrate(model.float(), pack(model), *tensors)
    away = (got.double() - want).abs() / (want.abs() + want.square().mean().sqrt())
    assert away.max() <= TOLERANCE[torch.float32] * len(model.layers) * model.steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": torch.zeros(1, 9, 12, dtype=torch.float64)}, "noise is torch.float64"),
        ({"noise": torch.zeros(1, 9, 12, dtype=torch.float16)}, "before is torch.float32, wanted noise's torch.float16"),
        ({"noise": torch.zeros(1, 200, 12)}, "203 steps together, wanted at most 128"),
        ({"before": torch.zeros(1, 3, 48)}, "before has shape"),
        ({"conditions": torch.zeros(1, 2, 12, 48)}, "conditions has shape"),
        ({"heads": 5}, "heads is 5"),
        ({"solver": "heun"}, "solver is 'heun', wanted one of euler, midpoint"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    (noise, before, conditions), weights = case(network(), 1, torch.float32)
    arguments = {"noise": noise, "before": before, "conditions": conditions, "heads": 2, "solver": "euler", **change}
    arguments |= {name: value.to(DEVICE) for name, value in arguments.items() if isinstance(value, Tensor)}
    with pytest.raises(ValueError, match=message):
        flow_integrate(**arguments, weights=weights, steps=2, guidance=1.0)
