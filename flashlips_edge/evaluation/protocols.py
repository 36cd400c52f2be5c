"""The two protocols, for the bundle and for the three systems that give its figures their scale (systems.py).

own      reconstruction: a clip speaks its own sound. The source is the truth, picture for picture. The editor sees the true mouth
         in it, so look at what `frozen` and `random` reach beside it
crossed  cross audio: a clip speaks another clip of the same person, begun a quarter in and gone round: recordings that all start and
         end in silence would agree by themselves (r = 0.5 on GRID). The truth is the sound's own recording
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation import measures, sheets, systems
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.takes import Result, Speech
from flashlips_edge.talking.networks import Networks

NOISE_LEVEL = 0.002  # of full scale, -54 dB
MOMENTS = 8  # frames of a clip that its page shows


@dataclass
class Scene:
    """One clip under both protocols: figures by `<system>.<protocol>.<metric>`, openings to draw, rows of pictures."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    tracks: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)  # protocol, line: seconds, openings
    rows: sheets.Rows = field(default_factory=list)


class Studio:
    """Makes and measures scenes with one bundle; the videos go to the folder `work`."""

    def __init__(self, bundle: Bundle, networks: Networks, judges: Judges, work: Path):
        self._bundle, self._networks, self._judges, self._work = bundle, networks, judges, work

    def scene(self, clip: Recording, partner: Recording) -> Scene:
        """The clip speaks its own sound and its partner's, and two kinds of silence: none at all, and low noise."""
        speeches = {"own": Speech.of(clip, clip), "crossed": Speech.of(partner, clip, partner.duration_ns // 4)}
        scene = Scene(clip.name, rows=_pictures("source", clip.crops))
        silent = np.zeros_like(speeches["own"].sound)
        spoken = {protocol: self._ours(clip, speech.sound, protocol) for protocol, speech in speeches.items()}
        others = {"copy": self._copy(clip), "random": self._random(clip), "frozen": self._ours(clip, silent, "frozen")}
        for protocol, speech in speeches.items():
            for system, result in ({"ours": spoken[protocol]} | others).items():
                figures = measures.lips(result, speech, self._judges)
                figures |= measures.picture(result, self._judges) if protocol == "own" else {}
                scene.figures |= {f"{system}.{protocol}.{name}": value for name, value in figures.items()}
            if speech.openings is not None:
                scene.figures |= {f"bound.{protocol}.{name}": value for name, value in measures.bound(speech, clip).items()}
        if self._judges.reader is not None:
            hiss = NOISE_LEVEL * np.random.default_rng(0).standard_normal(len(silent))
            for kind, result in {"zeros": others["frozen"], "noise": self._ours(clip, hiss, "noise")}.items():
                figures = measures.silence(result, spoken["own"])
                scene.figures |= {f"silence.{kind}.{name}": value for name, value in figures.items()}
            scene.tracks = {protocol: _tracks(spoken[protocol], speech, others["frozen"]) for protocol, speech in speeches.items()}
        for label, result in {**spoken, "random": others["random"], "frozen": others["frozen"]}.items():
            scene.rows += _pictures(label, result.crops)
        return scene

    def _ours(self, clip: Recording, sound: np.ndarray, kind: str) -> Result:
        systems.ours(self._bundle, clip.path, sound, self._video(clip, kind))
        return Result.read(self._video(clip, kind), clip, self._judges.reader)

    def _copy(self, clip: Recording) -> Result:
        systems.copy(clip, self._video(clip, "copy"))
        return Result.read(self._video(clip, "copy"), clip, self._judges.reader)

    def _random(self, clip: Recording) -> Result:
        systems.random(self._bundle, self._networks, clip, self._video(clip, "random"))
        return Result.read(self._video(clip, "random"), clip, self._judges.reader)

    def _video(self, clip: Recording, kind: str) -> Path:
        return self._work / f"{kind}.{clip.name}.mp4"


def _pictures(label: str, crops: np.ndarray) -> sheets.Rows:
    """One row: the mouth at eight moments of the clip."""
    moments = np.unique(np.linspace(0, len(crops) - 1, MOMENTS).astype(int))
    side = crops.shape[1]
    return [(label, [np.array(crops[i][side // 2 :, side // 4 : -(side // 4)]) for i in moments])]


def _tracks(result: Result, speech: Speech, frozen: Result) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a plot of a protocol shows."""
    assert speech.openings is not None
    seconds = result.clip.pts_ns * 1e-9
    lines = {
        "source": (seconds, result.clip.openings),
        "frozen": (frozen.pts_ns * 1e-9, frozen.openings),
        "speech": (seconds, speech.openings),
        "result": (result.pts_ns * 1e-9, result.openings),
    }
    return {name: line for name, line in lines.items() if name != "source" or not np.allclose(line[1], speech.openings)}
