"""From an ONNX graph to an engine file, with TensorRT or TensorRT-RTX; strongly typed: each tensor has the type that the graph gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.tensorrt import new_log
from flashlips_edge.errors import UserError

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]  # the least, the usual and the largest shape of an input


@dataclass(frozen=True)
class Plan:
    """An engine file, the timing cache as it is now (empty for TensorRT-RTX, which times when it runs), and the build's log."""

    image: bytes
    timings: bytes
    log: str


def shape_ranges(bundle: Bundle, graph: str, batch: int) -> dict[str, Range]:
    """The shapes that a graph's inputs may have: up to `batch` frames; other free axes from a step of speech, or a row of the latent,
    to what the run path asks for at most. Fixed axes are as in the golden inputs."""
    window = int(bundle.manifest["audio_to_lips"]["window"])
    result = {}
    for name, array in bundle.golden(graph)[0].items():
        declared = bundle.manifest["graphs"][graph].get("inputs", {}).get(name, ["batch", *array.shape[1:]])
        axes = [(1, 1, batch)]
        for size, axis in zip(array.shape[1:], declared[1:]):
            if not isinstance(axis, str):
                axes.append((size, size, size))
            elif graph == "speech_encoder":
                axes.append((size // window, size, 2 * size))
            else:
                axes.append((1, size, size))
        least, usual, most = zip(*axes)
        result[name] = (least, usual, most)
    return result


def compile_plan(
    library: Any,
    graph: bytes,
    name: str,
    ranges: dict[str, Range],
    workspace_mb: int,
    builds_for: tuple[str, ...] = (),
    timings: bytes = b"",
) -> Plan:
    """Compile `graph`, the bytes of an ONNX file; `builds_for` names TensorRT-RTX's chips, else it is for the GPU of this machine.

    UserError with the library's own words where it refuses the graph.
    """
    log = new_log(library)
    builder = library.Builder(log)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse(graph):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise UserError(f"graph {name}: {library.__name__} {library.__version__} cannot read it: {_first(reasons or log.errors)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # so that the inspector names each layer's precision
    profile = builder.create_optimization_profile()
    for tensor, shapes in ranges.items():
        profile.set_shape(tensor, *shapes)
    config.add_optimization_profile(profile)
    cache = None
    if builds_for:
        config.num_compute_capabilities = len(builds_for)
        for place, capability in enumerate(builds_for):
            config.set_compute_capability(getattr(library.ComputeCapability, capability), place)
    else:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_mb << 20)
        cache = config.create_timing_cache(timings)
        config.set_timing_cache(cache, False)
    image = builder.build_serialized_network(network, config)
    if image is None:
        raise UserError(f"graph {name}: {library.__name__} {library.__version__} cannot build it: {_first(log.errors)}")
    return Plan(bytes(image), bytes(cache.serialize()) if cache is not None else b"", "\n".join(log.lines))


def _first(reasons: list[str]) -> str:
    return " ".join((reasons or ["it gives no reason"])[0].split())[:300]
