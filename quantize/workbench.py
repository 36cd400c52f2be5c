"""A bundle's graphs made ready for one target, with what calibration knows of them; tries any assignment of precisions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

import onnx

from flashlips_edge.bundle import Bundle
from flashlips_edge.talking.networks import Networks
from quantize import fp16, graph, qdq, ranges
from quantize.answers import Answers, Quality, Trial, answer, compare, drive, feeds_of, least_cosine, picture, speak
from quantize.calibration import CalibrationSet
from quantize.folding import fold
from quantize.graph import Feed
from quantize.layers import Layer, layers_of
from quantize.layout import rearrange
from quantize.targets import LIPS_ENCODER, PICTURE_GRAPHS, SPEECH_GRAPHS, Target

MAX_FEEDS = 24  # of a graph, for its ranges
TRIED = (24, 4)  # frames and sounds that an assignment is tried on; lips vectors, which take no time, on all frames


class Workbench:
    """``models``: the graphs, folded and laid out for the target; ``layers``: what can go low; ``rules``: how the ranges
    of each graph that has layers are chosen; ``tries``: the rules there are. The graphs are those of ``tuned``, if there is one; what
    they are held against is the bundle's own answers. Raises UserError for an unknown operation and a broken range."""

    def __init__(self, bundle: Bundle, target: Target, form: str, frames: CalibrationSet, tuned: Bundle | None = None) -> None:
        self.bundle, self.target, self.form, self.frames = bundle, target, form, frames
        self.networks = Networks(bundle)
        self._source = tuned or bundle
        feeds = feeds_of(self._source, frames)
        self.try_on(frames, TRIED)
        self.models: dict[str, onnx.ModelProto] = {}
        self.layers: list[Layer] = []
        self.flops: dict[str, int] = {}
        self.rules: dict[str, str] = {}
        self.tries = ("max",) if form == "fp8" else ranges.RULES  # clipping gains a floating-point format nothing
        self._histograms: dict[str, dict[str, ranges.Histogram]] = {}
        self._feeds = {name: each[:: -(-len(each) // MAX_FEEDS)] for name, each in feeds.items()}
        for name in bundle.manifest["graphs"]:
            self._prepare(name, feeds[name][0])

    def try_on(self, frames: CalibrationSet, tried: tuple[int, int]) -> None:
        """Measure quality on these from now on: lips vectors on all of them, the rest on the first ``tried`` frames and sounds."""
        self._asked, self._tried = frames, frames.part(*tried)
        self._truth = replace(answer(self.networks, self._tried), lips=drive(self.networks, frames))

    def _prepare(self, name: str, feed: Feed) -> None:
        model = graph.load(str(self._source.graph_path(name)), name)
        one = {key: array[:1] for key, array in feed.items()}
        if not graph.has_free_axes(model):
            fold(model, one)
        if self.target.fused:
            rearrange(model, one)
        self.models[name] = model
        found, self.flops[name] = layers_of(name, model, one)
        if name not in self.target.graphs or not found:
            return
        needed = qdq.tensors_of(model, {node for layer in found for node in layer.nodes}, self.target.fused)
        self._histograms[name] = ranges.collect(name, model, needed, self._feeds[name])
        self.layers += found
        self.rules[name] = "max"

    def quantised(self, name: str, low: Set[Layer], rule: str | None = None) -> onnx.ModelProto:
        """The graph with these layers in low precision, the others as they were."""
        chosen = {
            tensor: ranges.choose(histogram, rule or self.rules[name], not self.target.fused)
            for tensor, histogram in self._histograms.get(name, {}).items()
        }
        nodes = {node for layer in low if layer.graph == name for node in layer.nodes}
        return qdq.insert(self.models[name], nodes, chosen, self.form, self.target.fused)

    def finished(self, name: str, low: Set[Layer], rule: str | None = None) -> onnx.ModelProto:
        """The graph as it is shipped: the other layers in the target's format for them."""
        model = self.quantised(name, low, rule)
        return fp16.convert(model) if self.target.rest == "fp16" else model

    def share(self, name: str, low: Set[Layer]) -> float:
        """Of the graph's operations, those at low precision."""
        return sum(layer.flops for layer in low if layer.graph == name) / self.flops[name]

    def size(self, name: str, low: Set[Layer]) -> float:
        """Bytes of the finished graph over those of the bundle's."""
        return self.finished(name, low).ByteSize() / self.bundle.graph_path(name).stat().st_size

    def lips(self, low: Set[Layer], rule: str) -> float:
        """The finished lips encoder's ``quality().lips``, without the pictures and the speech that follow from it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{LIPS_ENCODER}.onnx"
            onnx.save(self.finished(LIPS_ENCODER, low, rule), path)
            lips = drive(Trial(self.networks, {LIPS_ENCODER: path}, exact=not self.target.fused), self._asked)
        return least_cosine(lips, self._truth.lips)

    def quality(self, models: Mapping[str, onnx.ModelProto]) -> Quality:
        """The answers with these graphs in place of the bundle's, against the bundle's own."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / f"{name}.onnx" for name in models}
            for name, model in models.items():
                onnx.save(model, paths[name])
            trial = Trial(self.networks, paths, exact=not self.target.fused)
            mouths, lips, spoken = self._truth.mouths, self._truth.lips, self._truth.spoken
            if LIPS_ENCODER in models:  # what the changed graphs cannot reach is as it was
                lips = drive(trial, self._asked)
            if not SPEECH_GRAPHS.issuperset(models):
                mouths = picture(trial, self._tried, lips)
            if not PICTURE_GRAPHS.issuperset(models):
                spoken = speak(trial, self._tried)
            return compare(Answers(mouths, lips, spoken), self._truth, self.bundle.lips_opening)

    def choose_rules(self) -> dict[str, dict[str, Quality]]:
        """Try every rule for ranges on each graph with all its layers low, and keep the best; what each reached."""
        tried: dict[str, dict[str, Quality]] = {}
        for name in self.rules:
            mine = {layer for layer in self.layers if layer.graph == name}
            tried[name] = {rule: self.quality({name: self.quantised(name, mine, rule)}) for rule in self.tries}
            self.rules[name] = max(tried[name], key=lambda rule: score(tried[name][rule]))
        return tried


def score(quality: Quality) -> tuple[float, float, float]:
    """What is better of two: the picture, then lips, then speech; pictures and lips that are equal to a hair count as equal."""
    return round(quality.mouth_db + 1000 * quality.lips, 2), round(quality.spoken, 6), quality.opening
