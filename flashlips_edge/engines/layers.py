"""The precision of each layer as it was built, read back from TensorRT's inspector, and compared with what the bundle asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

WIDTHS = {"int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}  # bytes
WORDS = {"int8": "int8", "fp8": "fp8", "e4m3": "fp8", "half": "fp16", "fp16": "fp16", "bf16": "bf16", "bfloat16": "bf16"}
WORDS |= {"fp32": "fp32", "float": "fp32"}
ONNX_NAMES = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class Built:
    """counts: layers by precision. fallen: asked-for nodes that were built wider, with what they became. unknown: asked for, and in no
    layer that the inspector names."""

    counts: dict[str, int]
    fallen: dict[str, str]
    unknown: tuple[str, ...]
    asked: int

    @property
    def share(self) -> float:
        """Of the asked-for nodes, those that fell back."""
        return len(self.fallen) / max(1, self.asked)


def compare(inspected: str, asked: dict[str, str]) -> Built:
    """`inspected` is the inspector's JSON; `asked` gives the precision of each ONNX node that matters. A layer's precision is that of
    its first input, which is what it computes with. Raises ValueError when the inspector says nothing of layers."""
    layers = json.loads(inspected).get("Layers")
    if not isinstance(layers, list):
        raise ValueError("the inspector names no layers")
    counts: Counter[str] = Counter()
    built: dict[str, str] = {}
    for layer in layers:
        if not isinstance(layer, dict):
            continue  # built without details: a bare name
        precision = _precision(layer)
        if precision is None:
            continue
        counts[precision] += 1
        for node in ONNX_NAMES.findall(str(layer.get("Metadata", ""))):
            built[node] = precision
    fallen = {node: built[node] for node, wanted in asked.items() if node in built and WIDTHS[built[node]] > WIDTHS[wanted]}
    return Built(dict(sorted(counts.items())), fallen, tuple(node for node in asked if node not in built), len(asked))


def _precision(layer: dict[str, object]) -> str | None:
    for tensor in layer.get("Inputs") or []:  # type: ignore[attr-defined]
        for word in re.findall(r"[a-z]+\d*(?:m\d)?", str(tensor.get("Format/Datatype", tensor.get("Datatype", ""))).lower()):
            if word in WORDS:
                return WORDS[word]
    return None
