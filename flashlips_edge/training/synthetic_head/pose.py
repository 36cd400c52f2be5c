"""Where the head is, and how the canvas lands in the picture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from flashlips_edge.errors import UserError

CROP_UNITS = 2.88  # face units across a face crop (Haar box times 1.25)
CROP_CENTRE_Y = 0.18
RANGES = {
    "yaw": (-0.6, 0.6), "pitch": (-0.5, 0.5), "roll": (-0.8, 0.8), "x": (-1.0, 1.0), "y": (-1.0, 1.0), "scale": (0.05, 4.0),
    "blink": (0.0, 1.0), "brow": (-1.0, 1.0), "gaze": (-1.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Head pose. Angles in radians; yaw positive to the picture's right, pitch positive down, roll clockwise.

    x, y: shift in picture sides; scale 1 fills the picture as a face crop (Haar box times 1.25); blink 1 = eyes shut; brow 1 = raised;
    gaze -1..1 = eyes to the picture's left or right.

    Raises:
        UserError: a value outside its range.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    blink: float = 0.0
    brow: float = 0.0
    gaze: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), RANGES[field.name]
            if not isinstance(value, (int, float, np.number)) or not low <= value <= high:
                raise UserError(f"pose {field.name} is {value!r}; it must be a number from {low:g} to {high:g}")


def pixels_per_unit(pose: Pose, size: tuple[int, int]) -> float:
    """Picture pixels in one face unit."""
    return min(size) * pose.scale / CROP_UNITS


def to_face_units(pose: Pose, size: tuple[int, int], roll_share: float = 1.0) -> np.ndarray:
    """float64 [2, 3]: picture pixels to face units of the turned head, without yaw and pitch."""
    height, width = size
    unit = pixels_per_unit(pose, size)
    side = min(size)
    centre = np.array([(width - 1) / 2 + pose.x * side, (height - 1) / 2 + pose.y * side])
    roll = pose.roll * roll_share
    c, s = np.cos(roll) / unit, np.sin(roll) / unit
    turn = np.array([[c, s], [-s, c]])
    # the head rolls about its neck, so that the chin stays over it
    pivot = np.array([0.0, 1.2])
    upright = np.array([0.0, CROP_CENTRE_Y])
    picture_pivot = centre + unit * (pivot - upright)
    return np.column_stack([turn, pivot - turn @ picture_pivot])


def idle_pose_track(seed: int, n_frames: int, rate_hz: float = 25.0, base: Pose | None = None) -> list[Pose]:
    """A person sitting: breathing, small nods and turns, blinks, wandering eyes; smooth, drawn from ``seed``, around ``base``.

    Raises:
        UserError: ``n_frames`` or ``rate_hz`` is not positive.
    """
    if n_frames < 1:
        raise UserError(f"n_frames is {n_frames!r}; it must be at least 1")
    if not rate_hz > 0:
        raise UserError(f"rate_hz is {rate_hz!r}; it must be above 0")
    base = base or Pose()
    rng = np.random.default_rng([0x1D1E, int(seed)])
    time_s = np.arange(n_frames) / rate_hz

    def sway(periods_s: tuple[float, ...]) -> np.ndarray:
        return sum(
            np.sin(2 * np.pi * (time_s / (p * rng.uniform(0.85, 1.15)) + rng.random())) / (i + 1.3) for i, p in enumerate(periods_s)
        ) / len(periods_s)

    yaw, pitch, roll = 0.10 * sway((5.1, 2.3, 1.1)), 0.06 * sway((4.3, 1.7, 0.9)), 0.05 * sway((6.1, 2.9))
    breath = np.sin(2 * np.pi * (time_s / 3.6 + rng.random()))
    x, y = 0.015 * sway((5.7, 2.7)), 0.012 * sway((4.9, 2.1)) + 0.003 * breath
    brow = np.clip(0.5 * sway((3.7, 1.9)), -1, 1)
    blink, gaze = np.zeros(n_frames), np.zeros(n_frames)
    at = rng.uniform(0.6, 2.5)
    while at < time_s[-1]:
        since = time_s - at
        blink = np.maximum(blink, np.clip(np.minimum(since / 0.08, (0.24 - since) / 0.14), 0, 1))
        at += rng.uniform(1.8, 4.5)
    at = 0.0
    while at < time_s[-1]:  # the eyes jump and rest
        gaze[time_s >= at] = rng.normal(0, 0.12)
        at += rng.uniform(0.5, 2.2)
    gaze = np.convolve(np.pad(gaze, 1, mode="edge"), [0.25, 0.5, 0.25], "valid") - 0.8 * yaw

    def clipped(name: str, value: np.ndarray) -> np.ndarray:
        return np.clip(value + getattr(base, name), *RANGES[name])

    columns = {"yaw": yaw, "pitch": pitch, "roll": roll, "x": x, "y": y, "blink": blink, "brow": brow, "gaze": gaze}
    tracks = {name: clipped(name, value) for name, value in columns.items()}
    return [Pose(scale=base.scale, **{name: float(track[i]) for name, track in tracks.items()}) for i in range(n_frames)]
