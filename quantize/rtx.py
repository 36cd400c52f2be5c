"""Builds a graph with TensorRT-RTX, which needs no GPU for it: proof that a TensorRT parser takes the graph and finds kernels for it.

It knows no sm_87 and no sm_90: SM86 stands in for Orin (Ampere, no FP8), SM89 and SM120 for chips with FP8. What it builds is strongly
typed: every tensor in the type that stands in the graph, which is what TensorRT does with it on the device.
"""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.errors import UserError

CAPABILITIES = {"orin": ("SM86",), "datacentre": ("SM89", "SM120")}


def build(path: Path, capability: str, shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of the engine built of the graph in ``path`` for a capability, SM86 for example; ``shapes`` are the inputs'.

    UserError with TensorRT's own words where it refuses the graph. ImportError without the package tensorrt-rtx."""
    import tensorrt_rtx

    class Log(tensorrt_rtx.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: tensorrt_rtx.ILogger.Severity, message: str) -> None:
            if severity <= tensorrt_rtx.ILogger.ERROR:
                self.errors.append(message)

    log = Log()
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise UserError(f"{path.name}: TensorRT cannot read it: {_line(reasons or log.errors)}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{path.name}: TensorRT cannot build it for {capability}: {_line(log.errors)}")
    return engine.nbytes


def _line(messages: list[str]) -> str:
    return " ".join((messages or ["it gives no reason"])[0].split())[:300]
