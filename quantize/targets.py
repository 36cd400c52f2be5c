"""What a target's chip and inference engine want of a quantised graph."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from flashlips_edge.bundle import GRAPHS
from flashlips_edge.errors import UserError
from kernels.chips import CHIPS

PICTURE_GRAPHS = frozenset({"latent_encoder", "editor", "latent_decoder"})
SPEECH_GRAPHS = frozenset({"speech_encoder", "audio_to_lips"})
BYTES = {"int8": 1, "fp8": 1, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Target:
    """``formats``: the low-precision formats that the chip computes in, the default first. ``rest``: what the other layers compute
    in. ``graphs``: those that are quantised.

    ``fused``: ONNX Runtime's fast kernels take a convolution whole, with its output and int32 bias quantised too, on asymmetric
    uint8 activations. TensorRT takes symmetric inputs and weights and chooses the rest itself.

    ``low_rate``, ``rest_rate``: operations per second in either format; ``bandwidth``: bytes per second.
    """

    chip: str
    formats: tuple[str, ...]
    rest: str
    graphs: tuple[str, ...]
    fused: bool
    low_rate: float
    rest_rate: float
    bandwidth: float

    def saving(self, flops: int, weights: int) -> float:
        """Seconds of a run that a layer saves at low precision: its operations, and its weights on their way from memory."""
        return flops * (1 / self.rest_rate - 1 / self.low_rate) + weights * (BYTES[self.rest] - 1) / self.bandwidth


def _nvidia(name: str, formats: tuple[str, ...]) -> Target:
    chip = CHIPS[name]
    title = f"{chip.device}, sm_{chip.capability}, TensorRT"
    graphs = tuple(graph for graph in GRAPHS if graph not in SPEECH_GRAPHS)
    return Target(title, formats, "fp16", graphs, False, 2 * chip.matmul, chip.matmul, chip.bandwidth)


TARGETS = {
    # rates of 3 x 3 convolutions on two threads of an AMD EPYC with VNNI, as measured
    "cpu": Target("any CPU, ONNX Runtime", ("int8",), "fp32", GRAPHS, True, 1.2e12, 4.8e11, 2e10),
    "orin": _nvidia("orin", ("int8",)),
    "datacentre": _nvidia("datacentre", ("fp8", "int8")),
}


def find(name: str, low: str | None) -> tuple[Target, str]:
    """The target, and the low-precision format: its default where ``low`` is None. UserError for what there is not."""
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--target {name!r} is not one of {', '.join(TARGETS)}{hint}")
    target = TARGETS[name]
    if low is not None and low not in target.formats:
        raise UserError(f"--format {low}: target {name} ({target.chip}) does not compute in it; it takes {', '.join(target.formats)}")
    return target, low or target.formats[0]
