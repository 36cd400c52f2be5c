"""What each figure must reach."""

from __future__ import annotations

SETS = ("grid_s1", "grid_unseen", "video")
UNSEEN = SETS[1:]


class Mark:
    """At least (>=) or at most (<=) `value`, or no further from 0 (+-); above the figure `of`, where one is named, by `value`."""

    def __init__(self, sign: str, value: float, of: str | None = None):
        self.sign, self.value, self.of = sign, value, of

    def level(self, metrics: dict[str, float]) -> float | None:
        """The number to reach; None where the figure it is held against was not measured."""
        if self.of is None:
            return self.value
        return metrics[self.of] + self.value if self.of in metrics else None

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}" if self.of is None else f"{self.sign} {self.of} + {self.value:g}"


MARKS: dict[str, Mark] = {
    "autoencoder.mouth_db.grid_unseen": Mark(">=", 39.0),
    "autoencoder.mouth_db.video": Mark(">=", 37.0),
    "cost.gflop.autoencoder": Mark("<=", 2.7),
    "cost.gflop.frame": Mark("<=", 4.0),
    "cost.gflop.speech": Mark("<=", 0.2),
    "cost.bundle_mb": Mark("<=", 40.0),
    "same_face.masked_db.grid_s1": Mark(">=", 35.0),
    **{f"same_face.masked_db.{name}": Mark(">=", 2.0, f"same_face.best_copy_db.{name}") for name in UNSEEN},
    **{f"same_face.cross_db.{name}": Mark(">=", 0.0, f"same_face.copy_db.{name}") for name in SETS},
    **{
        f"speech.{protocol}.correlation.{name}": Mark(">=", 0.75 if name == "grid_s1" else 0.5)
        for protocol in ("own", "crossed")
        for name in SETS
    },
    **{f"speech.{protocol}.jitter.{name}": Mark("<=", 1.2) for protocol in ("own", "crossed") for name in SETS},
    **{f"silence.{kind}.share.{name}": Mark("+-", 0.1) for kind in ("zeros", "noise") for name in SETS},
    **{f"control.{way}.in_order.{name}": Mark(">=", 1.0) for way in ("between", "along") for name in SETS},
    "control.photos.in_order": Mark(">=", 1.0),
    **{f"self_drive.seam.{name}": Mark("<=", 1.1) for name in SETS},
    "speed.frames_per_second": Mark(">=", 25.0),
}


def reached(name: str, metrics: dict[str, float]) -> bool | None:
    """Whether a figure reaches its mark; None where it has none, or the figure it is held against was not measured."""
    mark = MARKS.get(name)
    level = mark.level(metrics) if mark else None
    if mark is None or level is None:
        return None
    value = abs(metrics[name]) if mark.sign == "+-" else metrics[name]
    return value >= level if mark.sign == ">=" else value <= level
