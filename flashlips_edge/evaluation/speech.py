"""Lips from speech through the run path: does the mouth open when the recorded one did, and stay closed in silence?

own:     a clip speaks its own sound. The editor sees the true mouth in the source, so this alone proves little.
crossed: a clip speaks another clip of the same person (its own where there is only one), begun a quarter in and gone round:
         recordings that all start and end in silence would agree by themselves (r = 0.5 on GRID). The truth is the sound's
         own recording. `leak` is the correlation with the avatar's own recorded lips instead, beside `chance`, what the
         two recordings still share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.evaluation.metrics import best_lag, correlation
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.run_path import lip_sync, read_crops, read_openings
from flashlips_edge.speech.features import SAMPLE_RATE_HZ

SILENCE_S = 3.0
NOISE_LEVEL = 0.002  # of full scale, -54 dB
LEAST_RANGE = 0.25  # of the recorded range
SETTLING_NS = 200_000_000  # what the mouth may take to close


@dataclass(frozen=True)
class Take:
    """One video made by the run path, and its openings [N] at positions [N] of the avatar's clip, beside the true ones [N]."""

    name: str
    avatar: Recording
    video: Path
    positions: np.ndarray
    openings: np.ndarray
    truth: np.ndarray

    @property
    def source_openings(self) -> np.ndarray:
        """What the avatar's own recording reads in these frames."""
        return self.avatar.openings[self.positions]

    def page(self) -> np.ndarray:
        """Eight moments: source over result, over both tracks of opening (recorded grey, result red)."""
        moments = self.positions[np.unique(np.linspace(0, len(self.positions) - 1, 8).astype(int))]
        results = read_crops(self.video, self.avatar, moments)
        top = sheets.sheet([(self.name.replace(".", "\n"), list(self.avatar.crops[moments])), ("result", results)])
        return sheets.stack([top, sheets.tracks(self.truth, self.openings, top.shape[1])])


class Studio:
    """Makes takes with one bundle and one landmark network, in the folder `work`; `seconds` shortens every sound."""

    def __init__(self, reader: LipReader, bundle: str, work: Path, seconds: float | None = None):
        self._reader, self._bundle, self._work, self._seconds = reader, bundle, work, seconds

    def own(self, clip: Recording) -> Take:
        """The clip speaks its own sound."""
        return self._take(f"own.{_name(clip)}", clip, clip.sound(), clip.openings)

    def crossed(self, avatar: Recording, partner: Recording) -> Take:
        """The avatar speaks its partner's sound, begun a quarter in and gone round."""
        shift_ns = partner.duration_ns // 4
        length = _samples(partner.duration_ns)  # as long as the pictures, so that both go round alike
        sound = partner.sound()[:length]
        sound = np.roll(np.pad(sound, (0, length - len(sound))), -_samples(shift_ns))
        return self._take(f"crossed.{_name(avatar)}", avatar, sound, recorded_at(partner, avatar.pts_ns + shift_ns))

    def silent(self, clip: Recording, kind: str) -> Take:
        """The clip speaks digital `zeros` or low `noise`; the truth is its closed mouth."""
        draw = np.random.default_rng(0).standard_normal(int(SILENCE_S * SAMPLE_RATE_HZ))
        sound = draw * {"zeros": 0.0, "noise": NOISE_LEVEL}[kind]
        closed = np.full(len(clip.openings), np.percentile(clip.openings, 5))
        return self._take(f"{kind}.{_name(clip)}", clip, sound, closed)

    def _take(self, name: str, avatar: Recording, sound: np.ndarray, truth: np.ndarray) -> Take:
        """`truth` [T] goes with the avatar's frames."""
        sound = sound[: int(self._seconds * SAMPLE_RATE_HZ) if self._seconds else None]
        wav, video = self._work / f"{name}.wav", self._work / f"{name}.mp4"
        soundfile.write(wav, sound, SAMPLE_RATE_HZ)
        lip_sync(video, self._bundle, avatar=avatar.path, audio=wav)
        positions, openings = read_openings(video, avatar, self._reader)
        heard = avatar.pts_ns[positions] * 1e-9 < len(sound) / SAMPLE_RATE_HZ
        positions, openings = positions[heard], openings[heard]
        return Take(name, avatar, video, positions, openings, truth[positions])


def measure_own(takes: list[Take]) -> dict[str, float]:
    """Means over the takes: correlation with the truth, range as a share of the true one, lag in frames."""
    return {
        "correlation": _mean(correlation(take.openings, take.truth) for take in takes),
        "range": _mean(spread(take.openings) / spread(take.truth) for take in takes),
        "lag_frames": _mean(best_lag(take.openings, take.truth) for take in takes),
    }


def measure_crossed(takes: list[Take]) -> dict[str, float]:
    """The same, and leak and chance: correlation of the result, and of the truth, with the avatar's own recorded lips."""
    return measure_own(takes) | {
        "leak": _mean(correlation(take.openings, take.source_openings) for take in takes),
        "chance": _mean(correlation(take.truth, take.source_openings) for take in takes),
    }


def measure_silence(silent: list[Take], spoken: list[Take]) -> dict[str, float]:
    """Opening above the clip's closed reading as a share of the same avatar's maximum in speech, from 200 ms on.

    The maximum counts as a quarter of the recorded one at least: a mouth that hardly opens is not thereby judged by nothing.
    Mean over frames and takes; `worst` is the takes' mean 95th percentile."""
    speech = {take.avatar.path: float(take.openings.max()) for take in spoken}
    shares = []
    for take in silent:
        recorded = take.avatar.openings
        closed = float(np.percentile(recorded, 5))
        widest = max(speech[take.avatar.path], closed + LEAST_RANGE * (float(recorded.max()) - closed))
        settled = take.avatar.pts_ns[take.positions] >= SETTLING_NS
        shares.append((take.openings[settled] - closed) / (widest - closed))
    return {"share": _mean(s.mean() for s in shares), "worst": _mean(np.percentile(s, 95) for s in shares)}


def recorded_at(clip: Recording, pts_ns: np.ndarray) -> np.ndarray:
    """The clip's recorded opening at these times, round and round past its end."""
    return np.interp(pts_ns % clip.duration_ns, clip.pts_ns, clip.openings)


def spread(track: np.ndarray) -> float:
    """Distance between the 5th and the 95th percentile."""
    low, high = np.percentile(track, (5, 95))
    return max(float(high - low), 1e-6)


def _samples(duration_ns: int) -> int:
    return duration_ns * SAMPLE_RATE_HZ // 1_000_000_000


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _name(clip: Recording) -> str:
    return f"{clip.path.parent.name}.{clip.path.stem}"
