"""Twelve simulated hours: nothing drifts, nothing piles up, nothing of what was interrupted is heard."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from simulation import CLOSED, RATE_HZ, Simulation, voice

MS = 1_000_000
SECOND = 1000 * MS
HOURS = 12
EVERY_NS = 120 * SECOND  # a sentence, with its own loudness; every third is interrupted
LEVELS = (0.2, 0.35, 0.6)


@pytest.mark.timeout(900)
def test_twelve_hours(monkeypatch):
    live = Simulation(monkeypatch, device=1.0003, block_ns=40 * MS)
    loudness: dict[int, float] = {}  # of the sound heard, by frame, the last seconds
    shown = {"frames": 0, "open": 0, "off": 0, "apart": 0.0, "last_ns": -1}
    level = {"now": 0.0, "quiet_after": 0}

    def heard(samples: np.ndarray, position: int) -> None:
        loud = float(np.abs(samples).mean())
        loudness[position * 25 // RATE_HZ] = loud
        loudness.pop(position * 25 // RATE_HZ - 100, None)
        if loud > 0.001:
            assert float(np.abs(samples).max()) < level["now"] * 2
            assert position < level["quiet_after"], "sound of before the interruption is heard"

    def seen(frame) -> None:
        shown["frames"] += 1
        assert frame.pts_ns > shown["last_ns"]
        shown["last_ns"] = frame.pts_ns
        shown["off"] += abs(live.playback.position_ns() - frame.pts_ns) > 21 * MS
        if frame.mouth > 0.02:
            shown["open"] += 1
            shown["apart"] += abs(frame.mouth - loudness.get(frame.pts_ns * 25 // SECOND, 0.0))

    live.heard, live.seen = heard, seen
    live.run(SECOND)
    gc.collect()
    sizes, queued = [], 0
    sentences = int(HOURS * 3600 * SECOND // EVERY_NS)
    epochs = stalls = 0
    for number in range(sentences):
        level["now"], level["quiet_after"] = LEVELS[number % 3], 1 << 60
        live.speech.push(voice(2, level["now"]), 16_000)
        live.speech.end_sentence()
        queued = max(queued, live.playback.queued_ns)
        if number % 3 == 2:
            live.run(SECOND)
            live.speech.interrupt()
            epochs += 1
            level["quiet_after"] = live.playback.taken + RATE_HZ * 50 // 1000
        if number % 50 == 49:
            live.suspend(700 * MS)  # a busy machine
            stalls += 1
        live.run_until((number + 1) * EVERY_NS)
        if number % 60 == 59:
            gc.collect()
            sizes.append(len(gc.get_objects()))

    assert live.speech.epoch == epochs == sentences // 3
    assert live.pictures.counters.left == pytest.approx(HOURS * 3600 * 25 * 1.0003, rel=1e-3)
    assert live.playback.position_ns() == pytest.approx(live.clock.ns * 1.0003, abs=50 * MS)  # the output's clock is the master
    assert shown["open"] > sentences * 15
    assert shown["apart"] / shown["open"] < 0.03
    assert shown["off"] <= 3 * stalls
    assert queued < 5 * SECOND and live.playback.queued_ns == 0
    assert live.speech.mouth_at(live.playback.position_ns()) is None and CLOSED < 0
    assert live.speech.pushes.entered == 2 * sentences and live.speech.counters.late < sentences
    assert max(sizes[3:]) - sizes[2] < 2000, sizes  # objects alive
