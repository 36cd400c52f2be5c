"""Sound on its way to the lips: what is pushed, and the sentence that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flashlips_edge.live.inflow import Inflow
from flashlips_edge.pump.samples import Samples
from flashlips_edge.talking.lips import STEP_NS, SpeechToLips


@dataclass(frozen=True)
class Push:
    epoch: int
    samples: np.ndarray  # float32 [n], mono
    sample_rate_hz: int
    pushed_ns: int  # on the clock
    last: bool = False  # nothing follows: the sentence ends here


@dataclass
class Sentence:
    """Sound that belongs together, and its lips."""

    to_lips: SpeechToLips
    first_ns: int  # on the clock: when something was first pushed
    pushed_ns: int  # ... and last
    inflow: Inflow | None = None
    sound: int = 0  # samples placed for the ear
    start_ns: int | None = None  # in media time, once placed
    held: list[np.ndarray] = field(default_factory=list)  # sound that waits for the first lips
    unheard: Samples = field(default_factory=Samples)  # at 16 kHz, not yet given to the lips
    steps: int = 0  # of lips, placed
    silence_ns: int = 0  # added since something was pushed
    ended: bool = False

    @property
    def lips_end_ns(self) -> int:
        return (self.start_ns or 0) + self.steps * STEP_NS
