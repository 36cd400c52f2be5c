"""Whether all is well, for /healthz and the watchdog, and the counters for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.serve.feed import Feed
from flashlips_edge.session import LipSync

STALE_NS = 2 * SECOND_NS
COUNTED = tuple(field.name for field in fields(Counters))


class Health:
    """What is wrong, by stage: one that hangs, or no frame within the last two seconds."""

    def __init__(self, session: LipSync, feed: Feed, clock: Clock):
        self._session, self._feed, self._clock = session, feed, clock

    def faults(self) -> dict[str, str]:
        """Empty, or one sentence by stage."""
        found = {stage: f"{stage} hangs, or has hung too often" for stage in self._session.stuck}
        age_ns = self._clock.now_ns() - self._feed.last_frame_ns
        if age_ns > STALE_NS:
            found["frames"] = f"the last frame came {age_ns / SECOND_NS:.1f} s ago"
        return found


class SessionCollector(Collector):
    """The session's stats as Prometheus metrics, read when they are asked for."""

    def __init__(self, session: LipSync, clients: Callable[[], dict[str, int]]):
        self._session, self._clients = session, clients

    def collect(self) -> Iterator[Metric]:
        stats = self._session.stats()
        items = CounterMetricFamily(
            "flashlips_items", "Frames, blocks of sound and lips steps that passed a stage", labels=["stage", "what"]
        )
        for stage, counters in stats.counters.items():
            for what in COUNTED:
                items.add_metric([stage, what], getattr(counters, what))
        yield items
        restarts = CounterMetricFamily("flashlips_restarts", "Times that a stage was started again", labels=["stage"])
        for stage, number in stats.restarts.items():
            restarts.add_metric([stage], number)
        yield restarts
        yield CounterMetricFamily("flashlips_media_seconds", "Media time since the session was opened", value=stats.media_ns / SECOND_NS)
        yield CounterMetricFamily("flashlips_interruptions", "The epoch: how often the face was interrupted", value=stats.epoch)
        yield GaugeMetricFamily("flashlips_level", "0 is full quality; higher does less, being late", value=stats.level)
        yield GaugeMetricFamily("flashlips_speaking", "1 while the face speaks", value=stats.speaking)
        gauges = GaugeMetricFamily("flashlips_gauge", "The session's other figures, the unit in the name", labels=["name"])
        for name, value in stats.gauges.items():
            gauges.add_metric([name], value)
        yield gauges
        problems = GaugeMetricFamily("flashlips_problem", "1 while something is wrong with a stage, a source or a sink", labels=["source"])
        for source in stats.problems:
            problems.add_metric([source], 1)
        yield problems
        clients = GaugeMetricFamily("flashlips_clients", "Connected now", labels=["kind"])
        for kind, number in self._clients().items():
            clients.add_metric([kind], number)
        yield clients


def metrics(collector: Collector) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
