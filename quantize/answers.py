"""What a bundle makes of the calibration set, through the run path's own code; how far two bundles' answers are apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.choice import Engine
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.evaluation.metrics import mouth_box
from flashlips_edge.talking.lips import SpeechToLips
from flashlips_edge.talking.networks import Networks
from quantize.calibration import CalibrationSet
from quantize.graph import Feed

BATCH = 4


@dataclass(frozen=True, eq=False)
class Answers:
    """mouths float32 [P, h, w, 3], levels 0 to 255, of some of the frames; lips [N, 12] of the lips encoder; spoken [M, T, 12] of the
    speech graphs."""

    mouths: np.ndarray
    lips: np.ndarray
    spoken: np.ndarray


@dataclass(frozen=True)
class Quality:
    """Against another bundle's answers.

    mouth_db    PSNR of the mouth box over all frames; worst_db that of the worst frame
    lips        least cosine of a frame's lips vector, from the lips encoder; spoken: mean cosine of those from speech
    opening     correlation over time of how open the spoken lips are
    """

    mouth_db: float
    worst_db: float
    lips: float
    spoken: float
    opening: float


def answer(networks: Networks, frames: CalibrationSet) -> Answers:
    """Everything that the networks say to the set."""
    lips = drive(networks, frames)
    return Answers(picture(networks, frames, lips), lips, speak(networks, frames))


def drive(networks: Networks, frames: CalibrationSet) -> np.ndarray:
    """Lips [N, 12] of the drivers."""
    return np.concatenate([networks.lips(frames.drivers[i : i + BATCH]) for i in range(0, len(frames.drivers), BATCH)])


def picture(networks: Networks, frames: CalibrationSet, lips: np.ndarray) -> np.ndarray:
    """Mouths [N, h, w, 3] of the crops with lips [N, 12]."""
    mouths = []
    for start in range(0, len(frames.crops), BATCH):
        part = slice(start, start + BATCH)
        references = [np.concatenate(networks.encode(four)) for four in frames.references[part]]
        pictures = networks.edit(frames.crops[part], networks.encode(frames.crops[part]), np.stack(references), lips[part])
        mouths += [mouth_box(each) for each in pictures]
    return np.stack(mouths)


def speak(networks: Networks, frames: CalibrationSet) -> np.ndarray:
    """Lips [M, T, 12] of the sounds, said by their faces."""
    spoken = []
    for sound, faces in zip(frames.sounds, frames.faces):
        reference_lips = networks.lips(faces)
        order = np.argsort(reference_lips @ networks.bundle.lips_opening, kind="stable")
        speech = SpeechToLips(networks, reference_lips[order], reference_lips[order[0]])
        spoken.append(np.concatenate([speech.push(sound), speech.finish()]))
    return np.stack(spoken)


def compare(given: Answers, truth: Answers, opening: np.ndarray) -> Quality:
    """``given`` against ``truth``; ``opening`` [12] is the bundle's direction of opening mouths."""
    square = np.square(given.mouths - truth.mouths).mean(axis=(1, 2, 3))
    a, b = given.spoken @ opening, truth.spoken @ opening  # [M, T]
    return Quality(
        decibels(float(square.mean())),
        decibels(float(square.max())),
        least_cosine(given.lips, truth.lips),
        _or_worst(_cosine(given.spoken, truth.spoken).mean()),
        _or_worst(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)])),
    )


def least_cosine(given: np.ndarray, truth: np.ndarray) -> float:
    """Of lips vectors [N, 12], that of the worst frame."""
    return _or_worst(_cosine(given, truth).min())


def decibels(square_error: float) -> float:
    """PSNR of a mean square error in levels; 120 dB for none at all, 0 for what is no number."""
    if not np.isfinite(square_error):
        return 0.0
    return float(min(120.0, 10 * np.log10(255**2 / max(square_error, 1e-12))))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def _or_worst(agreement: float) -> float:
    """A cosine or a correlation; where numbers overflowed, the worst there is."""
    return float(agreement) if np.isfinite(agreement) else -1.0


class Trial(Networks):
    """``networks`` with other files for some graphs; the rest of the engines are shared.

    ``exact``: every Q/DQ pair is computed as it is written, none is fused: slow, and runs FP8 on any CPU.
    """

    def __init__(self, networks: Networks, changed: dict[str, Path], exact: bool = False) -> None:
        super().__init__(networks.bundle)
        self._others, self._changed, self._exact = networks, changed, exact

    def engine(self, graph_name: str) -> Engine:
        if graph_name not in self._changed:
            return self._others.engine(graph_name)
        if graph_name not in self._engines:
            self._engines[graph_name] = OnnxRuntimeEngine(self._changed[graph_name], self._threads, fuse_quantised=not self._exact)
        return self._engines[graph_name]


class _Recorder:
    """An engine that remembers its inputs."""

    def __init__(self, engine: Engine, feeds: list[Feed]) -> None:
        self._engine, self._feeds = engine, feeds
        self.input_shapes, self.output_shapes = engine.input_shapes, engine.output_shapes

    def run(self, inputs: Feed) -> Feed:
        self._feeds.append(inputs)
        return self._engine.run(inputs)


class Recording(Networks):
    """Networks whose graphs remember what they were given: ``feeds`` by graph."""

    def __init__(self, bundle: Bundle, threads: int = 2) -> None:
        super().__init__(bundle, threads)
        self.feeds: dict[str, list[Feed]] = {}

    def engine(self, graph_name: str) -> Engine:
        return _Recorder(super().engine(graph_name), self.feeds.setdefault(graph_name, []))  # type: ignore[return-value]


def feeds_of(bundle: Bundle, frames: CalibrationSet) -> dict[str, list[Feed]]:
    """Each graph's inputs, as the graphs before it really give them."""
    networks = Recording(bundle)
    answer(networks, frames)
    return networks.feeds


def golden_feeds(bundle: Bundle, frames: CalibrationSet) -> dict[str, Feed]:
    """One batch of two for each picture graph, of the synthetic head alone: nobody's face, so that it can go with the bundle."""
    networks = Recording(bundle)
    drawn = frames.synthetic(2)
    picture(networks, drawn, drive(networks, drawn))
    return {name: {key: array[:2] for key, array in feeds[0].items()} for name, feeds in networks.feeds.items()}
