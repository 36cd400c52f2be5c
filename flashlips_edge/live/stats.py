"""What a live session says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from flashlips_edge.pump.counters import Counters


@dataclass(frozen=True)
class Stats:
    """One look at a session.

    media_ns    the sound heard now, in media time
    level       0 at full quality, up to 3 when it cannot keep up (live/ladder.py)
    epoch       how often it was interrupted
    speaking    whether something is being said
    counters    by stage: "sound in", "lips", "pictures", "show", "face", "sink <name>", "sink <name> sound"
    gauges      measurements by name, the unit in the name: the newest few seconds, unless the name says otherwise
    restarts    by stage: how often it failed or hung and was started again
    problems    by stage or source, one sentence each, while they last
    """

    media_ns: int
    level: int
    epoch: int
    speaking: bool
    counters: dict[str, Counters] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
