"""What a target's chip and inference engine want of a quantised graph."""

from __future__ import annotations

from dataclasses import dataclass

from flashlips_edge.errors import UserError
from kernels.table import Target as Table
from kernels.table import find_target

PICTURE_GRAPHS = frozenset({"latent_encoder", "editor", "latent_decoder"})
LIPS_ENCODER = "lips_encoder"
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


# of 3 x 3 convolutions on two threads of an AMD EPYC with VNNI, as measured
CPU_RATES = {"low_rate": 1.2e12, "rest_rate": 4.8e11, "bandwidth": 2e10}


def of(table: Table) -> Target:
    """What a device of targets/<name>.yaml wants."""
    precision, chip = table.precision, table.chip
    same = {"formats": precision.formats, "rest": precision.rest, "graphs": precision.low}
    if chip is None:
        return Target(f"{table.device}, ONNX Runtime", fused=True, **same, **CPU_RATES)
    rates = {"low_rate": 2 * chip.matmul, "rest_rate": chip.matmul, "bandwidth": chip.bandwidth}
    return Target(f"{chip.device}, sm_{chip.capability}, TensorRT", fused=False, **same, **rates)


TARGETS = {name: of(find_target(name)) for name in ("cpu", "orin", "datacentre")}  # the ones that are compared


def find(name: str, low: str | None) -> tuple[Target, str]:
    """The target, and the low-precision format: its default where ``low`` is None. UserError for what there is not."""
    target = of(find_target(name))
    if low is not None and low not in target.formats:
        raise UserError(f"--format {low}: target {name} ({target.chip}) does not compute in it; it takes {', '.join(target.formats)}")
    return target, low or target.formats[0]
