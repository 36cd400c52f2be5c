"""targets/<name>.yaml, the one table of devices: what the command lines, checks, documents and tests know of each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from flashlips_edge.bundle import GRAPHS
from flashlips_edge.errors import UserError
from kernels.chips import TABLES, Chip, read_chip
from kernels.records import read_yaml, record

ENGINES = ("onnxruntime", "tensorrt", "tensorrt_rtx")
LOW, REST = ("int8", "fp8"), ("fp16", "fp32")


@dataclass(frozen=True)
class System:
    """Software that a device comes with: versions of CUDA, TensorRT and Python."""

    name: str
    cuda: str
    tensorrt: str
    python: str


@dataclass(frozen=True)
class Precision:
    """formats: those of low precision that the chip computes in, the default first. rest: what other layers compute in.
    graphs: `low` where as many layers as the budget allows go low, else `rest`."""

    formats: tuple[str, ...]
    rest: str
    graphs: dict[str, str]

    def __post_init__(self) -> None:
        if not self.formats or not set(self.formats) <= set(LOW):
            raise ValueError(f"precision.formats takes {' and '.join(LOW)}, not {list(self.formats)}")
        if self.rest not in REST:
            raise ValueError(f"precision.rest is {' or '.join(REST)}, not {self.rest!r}")
        if set(self.graphs) != set(GRAPHS) or not set(self.graphs.values()) <= {"low", "rest"}:
            raise ValueError(f"precision.graphs says low or rest for each of {', '.join(GRAPHS)}")

    @property
    def low(self) -> tuple[str, ...]:
        """The graphs that are quantised."""
        return tuple(name for name in GRAPHS if self.graphs[name] == "low")


@dataclass(frozen=True)
class Limits:
    """batch: frames that go through the networks together, at most. mouth_db: least PSNR of the mouth box against fp32. golden_error:
    share of the largest output. fallback_share: of layers that may be in another precision than asked for. workspace_mb: device memory
    that the compiler may try things in."""

    batch: int
    mouth_db: float
    golden_error: float
    fallback_share: float
    workspace_mb: int

    def __post_init__(self) -> None:
        ranges = {"batch": (1, 64), "mouth_db": (20, 100), "golden_error": (0, 1), "fallback_share": (0, 1), "workspace_mb": (0, 1 << 20)}
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} {getattr(self, name):g} is out of range: {least} to {most}")


@dataclass(frozen=True)
class Table:
    """The file's entries as they stand in it."""

    device: str
    engine: str
    preset: str
    systems: tuple[System, ...]
    opset: int
    precision: Precision
    limits: Limits
    chip: dict[str, object] | None = None
    builds_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A device. `opset`: the newest that its oldest engine reads. `builds_for`: TensorRT-RTX's names of the chips that one engine
    file serves. `chip` is None where there is no GPU."""

    name: str
    device: str
    engine: str
    preset: str
    systems: tuple[System, ...]
    opset: int
    precision: Precision
    limits: Limits
    chip: Chip | None
    builds_for: tuple[str, ...]


def read_target(path: Path) -> Target:
    """The device of one file. Raises UserError naming the file and the entry that is wrong."""
    raw = read_yaml(path)
    chip = raw.get("chip") if isinstance(raw, dict) else None
    table = record(Table, {**raw, "chip": {} if chip is not None else None} if isinstance(raw, dict) else raw, str(path))
    facts = None if chip is None else read_chip(path.stem, table.device, chip, f"{path}: chip")
    if table.engine not in ENGINES:
        raise UserError(f"{path}: engine {table.engine!r} is not one of {', '.join(ENGINES)}")
    if (facts is None) != (table.engine == "onnxruntime"):
        raise UserError(f"{path}: engine {table.engine} {'needs' if facts is None else 'has no use for'} the entry chip")
    if facts is not None and "fp8" in table.precision.formats and not facts.fp8:
        raise UserError(f"{path}: precision.formats names fp8, and sm_{facts.capability} does not compute in it")
    if bool(table.builds_for) != (table.engine == "tensorrt_rtx"):
        raise UserError(f"{path}: builds_for is for the engine tensorrt_rtx, and must be there for it")
    if not 18 <= table.opset <= 30:
        raise UserError(f"{path}: opset {table.opset} is out of range: 18, which graphs are exported in, to 30")
    return Target(path.stem, **{**vars(table), "chip": facts})


def names() -> list[str]:
    """The targets there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def find_target(name: str, argument: str = "--target") -> Target:
    """The target of that name. Raises UserError naming those there are and the nearest."""
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{argument} {name!r} is not one of {', '.join(names())}{hint}")
    return read_target(TABLES / f"{name}.yaml")
