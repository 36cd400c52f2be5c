"""What a live session gives up when it is late, and takes back."""

from __future__ import annotations

from flashlips_edge.live.ladder import EVERY, UP_NS, Ladder

FRAME_NS = 40_000_000


def run(ladder: Ladder, now_ns: int, pictures: int, took_ns: int, late: int) -> int:
    for _ in range(pictures):
        now_ns += FRAME_NS * ladder.every
        ladder.made(now_ns, took_ns, late)
    return now_ns


def test_it_stays_at_full_quality_while_pictures_are_in_time():
    ladder = Ladder(FRAME_NS)
    run(ladder, 0, 1000, 35_000_000, 0)
    assert ladder.level == 0 and ladder.every == 1 and ladder.steps == [0, 0]


def test_a_picture_that_is_late_now_and_then_changes_nothing():
    ladder = Ladder(FRAME_NS)
    now_ns = 0
    for _ in range(50):
        now_ns = run(ladder, now_ns, 19, 30_000_000, 0)
        now_ns = run(ladder, now_ns, 1, 70_000_000, 1)
    assert ladder.level == 0


def test_it_goes_down_rung_by_rung_and_no_further():
    ladder = Ladder(FRAME_NS)
    levels = []
    now_ns = 0
    for _ in range(200):
        now_ns = run(ladder, now_ns, 1, 90_000_000, 1)
        levels.append(ladder.level)
    assert [level for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]] == [0, 1, 2, 3]
    assert ladder.every == EVERY[3] and not ladder.edits_silence


def test_it_comes_back_when_there_is_time_again():
    ladder = Ladder(FRAME_NS)
    now_ns = run(ladder, 0, 200, 90_000_000, 1)
    now_ns = run(ladder, now_ns, 400, 10_000_000, 0)
    assert ladder.level == 0 and ladder.steps == [3, 3]
    assert now_ns > 3 * UP_NS


def test_it_does_not_come_back_to_what_would_be_too_much():
    ladder = Ladder(FRAME_NS)
    now_ns = run(ladder, 0, 60, 55_000_000, 1)
    assert ladder.level >= 1
    run(ladder, now_ns, 400, 55_000_000, 0)
    assert ladder.level == 1  # 55 ms a picture is too much for every 40, and little enough for every 80
