"""One session and all of its clients: what they may ask of it, and what it tells them."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import asdict
from typing import Any

from flashlips_edge.pump.clock import Clock
from flashlips_edge.serve import messages, systemd
from flashlips_edge.serve.feed import Feed
from flashlips_edge.serve.health import Health
from flashlips_edge.serve.outbox import Outbox
from flashlips_edge.serve.speaker import Speaker
from flashlips_edge.session import LipSync, Stats
from flashlips_edge.tts.voice import Voice

LOOK_S = 0.1  # how often the session's stats are turned into events
SINK = "serve"

log = logging.getLogger(__name__)


class Service:
    """Lives in one event loop, from `start` to `close`; the session and the voice belong to whoever made them.

    clients    connected now, by kind
    """

    def __init__(self, session: LipSync, clock: Clock, voice: Voice | None = None):
        self.session = session
        self.feed = Feed(session, clock)
        self.health = Health(session, self.feed, clock)
        self.clients = {"websocket": 0, "unauthenticated": 0, "webrtc": 0}
        self._clock = clock
        self._speaker = None if voice is None else Speaker(session, voice)
        self._listeners: list[Outbox] = []
        self._told = session.stats()
        self._clip = session.clip
        self._problems: dict[str, str] = {}
        self._stop = asyncio.Event()

    @property
    def has_voice(self) -> bool:
        return self._speaker is not None

    def start(self) -> None:
        self.session.add_sink(SINK, self.feed)
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._stop.set()
        await self._watching
        self.session.remove_sink(SINK)
        if self._speaker is not None:
            await asyncio.to_thread(self._speaker.close)

    def listen(self, outbox: Outbox) -> None:
        """Events go into the lane "events" of this outbox from now on."""
        self._listeners.append(outbox)

    def leave(self, outbox: Outbox) -> None:
        self._listeners.remove(outbox)

    def interrupt(self) -> None:
        if self._speaker is not None:
            self._speaker.interrupt()
        self.session.interrupt()
        self.look()

    def say(self, text: str) -> str | None:
        """None, or one sentence why this text will not be said."""
        if self._speaker is None:
            return "say: the service has no voice: start it with --voice"
        return None if self._speaker.say(text) else "say: too many texts wait already: let some be said, or interrupt"

    def problems(self, stats: Stats) -> dict[str, str]:
        """What is wrong by then, by source, in one sentence each: the session's and the voice's."""
        if self._speaker is None or self._speaker.problem is None:
            return stats.problems
        return {**stats.problems, "voice": self._speaker.problem}

    def stats_event(self, dropped: int) -> str:
        stats = self.session.stats()
        return messages.event(
            "stats",
            media_ns=stats.media_ns,
            level=stats.level,
            epoch=stats.epoch,
            speaking=stats.speaking,
            counters={name: asdict(counters) for name, counters in stats.counters.items()},
            gauges={name: float(value) for name, value in stats.gauges.items() if math.isfinite(value)},
            restarts=stats.restarts,
            problems=self.problems(stats),
            clients=self.clients,
            dropped=dropped,
        )

    def look(self) -> None:
        """Tell the clients, and the log, what has changed since the last look."""
        before, stats = self._told, self.session.stats()
        self._told = stats
        if stats.epoch != before.epoch:
            self._tell("interrupted", epoch=stats.epoch)
        if stats.speaking != before.speaking:
            self._tell("speaking" if stats.speaking else "silent", media_ns=stats.media_ns)
        if stats.level != before.level:
            self._tell("level", level=stats.level)
        clip, self._clip = self._clip, self.session.clip
        if clip != self._clip and clip in self.session.clips[1:]:
            self._tell("clip_ended", clip=clip)
        problems = self.problems(stats)
        for source in sorted(problems.keys() | self._problems.keys()):
            if problems.get(source) != self._problems.get(source):
                self._tell("problem", source=source, problem=problems.get(source))
        self._problems = problems

    def _tell(self, kind: str, **values: Any) -> None:
        text = messages.event(kind, **values)
        log.info(kind, extra=values)
        for outbox in self._listeners:
            outbox.put("events", text)

    async def _watch(self) -> None:
        """Look, and keep the service manager's watchdog quiet while frames flow."""
        period_s = systemd.watchdog_period_s()
        due_ns = self._clock.now_ns()
        while not self._stop.is_set():
            self.look()
            if period_s is not None and self._clock.now_ns() >= due_ns and not self.health.faults():
                systemd.notify("WATCHDOG=1")
                due_ns = self._clock.now_ns() + int(period_s * 1e9)
            try:
                await asyncio.wait_for(self._stop.wait(), LOOK_S)
            except asyncio.TimeoutError:
                continue
