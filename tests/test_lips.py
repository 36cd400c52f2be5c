"""Lips over time: the track, speech in pieces, silence; and the thread that reads ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from faces import speech
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_bundle

from flashlips_edge.bundle import Bundle
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.pump.read_ahead import read_ahead
from flashlips_edge.speech.features import SAMPLES_PER_STEP, STEP_RATE_HZ, steps_of
from flashlips_edge.speech.silence import silence_weight
from flashlips_edge.talking.identity import Identity, lips_of
from flashlips_edge.talking.lips import LOOK_AHEAD_STEPS, STEP_NS, LipsTrack, SpeechToLips, calmed
from flashlips_edge.talking.mouth import AT_REST, PRESS, SEEMS_CLOSED, SPOKEN, choose_references, own_way, seen_speaking
from flashlips_edge.talking.networks import Networks

CLOSED = np.full(12, -1, np.float32)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Networks:
    return Networks(tiny_bundle(tmp_path_factory.mktemp("bundle")), threads=1)


def spoken(networks: Networks, pieces: list[np.ndarray], new_steps: int | None = None) -> np.ndarray:
    to_lips = SpeechToLips(networks, np.zeros((4, 12), np.float32), CLOSED, new_steps=new_steps)
    return np.concatenate([to_lips.push(piece) for piece in pieces] + [to_lips.finish()])


def voice(steps: float) -> np.ndarray:
    return speech(steps / STEP_RATE_HZ)


def test_track_is_linear_between_vectors_and_holds_at_its_ends():
    track = LipsTrack()
    assert track.at(0) is None
    track.append(1000, np.zeros(12))
    track.append(2000, np.ones(12))
    assert [float(track.at(t)[0]) for t in (0, 1000, 1250, 2000, 9000)] == [0, 0, 0.25, 1, 1]


@given(st.integers(0, 1100))
def test_track_forgets_only_what_no_later_time_needs(before):
    track = LipsTrack()
    for t in range(0, 1000, 10):
        track.append(t, np.full(12, t))
    expected = [track.at(t)[0] for t in range(before, 1200, 7)]
    track.forget(before)
    assert [track.at(t)[0] for t in range(before, 1200, 7)] == expected
    assert len(track._lips) <= max(1, 101 - before // 10)


@given(cuts=st.lists(st.integers(0, 130 * SAMPLES_PER_STEP), max_size=6), samples=st.integers(1, 130 * SAMPLES_PER_STEP))
def test_speech_in_pieces_gives_one_vector_for_every_step_begun(networks, cuts, samples):
    pieces = np.split(voice(130)[:samples], sorted(cut for cut in cuts if cut < samples))
    for new_steps in (None, 5):
        assert len(spoken(networks, pieces, new_steps)) == steps_of(samples)


def test_the_lips_of_a_step_belong_to_the_sound_of_that_step(networks):
    waveform = np.concatenate([voice(60) * 0.1, voice(20), voice(60) * 0.1])
    for new_steps in (None, 5):
        loud = spoken(networks, [waveform], new_steps)[:, 0]
        assert loud[62:78].min() > max(loud[20:58].max(), loud[82:120].max())


@pytest.mark.parametrize("new_steps", [1, 3, 5])
def test_live_lips_come_one_chunk_and_the_look_ahead_after_their_speech(networks, new_steps):
    to_lips = SpeechToLips(networks, np.zeros((4, 12), np.float32), CLOSED, new_steps=new_steps)
    heard = np.arange(1, 41)
    given = np.cumsum([len(to_lips.push(voice(1))) for _ in heard])
    assert np.all(given % new_steps == 0)
    assert np.all(heard - given < new_steps + LOOK_AHEAD_STEPS)


class Quarrelling:
    """Networks whose every window puts the same slow lips somewhere else."""

    window, previous = 50, 10

    def __init__(self):
        self.apart, self.windows = 1.0, 0

    def speech(self, waveform):
        return np.zeros((len(waveform) // SAMPLES_PER_STEP, 1), np.float32)

    def audio_to_lips(self, speech, reference_lips, previous_lips):
        self.windows += 1
        self.apart = -self.apart
        return np.full((50, 12), self.apart, np.float32)


@pytest.mark.parametrize("new_steps", [None, 3, 5, 20], ids=["recorded", "live 3", "live 5", "live 20"])
def test_windows_that_disagree_pass_into_each_other(new_steps):
    networks = Quarrelling()
    lips = spoken(networks, [voice(150)], new_steps)
    speaking = slice(5, 150)  # once the mouth is open
    assert networks.windows > 3
    assert np.abs(np.diff(lips[speaking], axis=0)).max() < 2 / 5, "a border shows: the windows are 2 apart"


@pytest.fixture(scope="module")
def nano() -> Networks:
    return Networks(Bundle.open("nano"), threads=1)


@pytest.mark.parametrize("new_steps, look_ahead, alike", [(5, LOOK_AHEAD_STEPS, 0.9), (1, 2, 0.85)], ids=["chunks", "as a live session"])
def test_live_speech_has_no_borders_and_follows_the_whole(nano, data_path, new_steps, look_ahead, alike):
    waveform = read_audio(data_path("test/speech/jfk.wav"))[: 5 * 16_000]
    closed = np.asarray(nano.bundle.lips_closed, np.float32)
    references = np.repeat(closed[None], 4, axis=0)
    whole = SpeechToLips(nano, references, closed)
    live = SpeechToLips(nano, references, closed, new_steps=new_steps, look_ahead=look_ahead)
    whole_lips = np.concatenate([whole.push(waveform), whole.finish()])
    pieces = np.split(waveform, np.arange(320, len(waveform), 320))
    live_lips = np.concatenate([live.push(piece) for piece in pieces] + [live.finish()])

    # Speech moves the lips more at some steps than at others: the whole says how much. Where they part or close, borders are no question.
    change, whole_change = (np.linalg.norm(np.diff(lips, axis=0), axis=1) for lips in (live_lips, whole_lips))
    talking = np.convolve(silence_weight(waveform) > 0, np.ones(9), "same")[1:] == 0
    border = np.arange(len(change)) % new_steps == new_steps - 1
    across, inside = (change[which & talking].sum() / max(1e-6, whole_change[which & talking].sum()) for which in (border, ~border))
    assert talking.sum() > 40
    assert across < 1.2 * (inside if new_steps > 1 else 1.0)
    opening = nano.bundle.lips_opening
    assert np.corrcoef(live_lips @ opening, whole_lips @ opening)[0, 1] > alike


def test_live_speech_without_end_keeps_a_bounded_history(networks):
    to_lips = SpeechToLips(networks, np.zeros((4, 12), np.float32), CLOSED, new_steps=5)
    for _ in range(24):
        to_lips.push(voice(25))
    assert to_lips._heard.nbytes < 1_000_000


def test_silence_closes_the_mouth_within_200_ms_and_keeps_it_closed(networks):
    waveform = np.concatenate([voice(50), np.zeros(75 * SAMPLES_PER_STEP, np.float32)])
    for new_steps in (None, 5):
        lips = spoken(networks, [waveform], new_steps)
        closed_after = 50 + 200_000_000 // STEP_NS
        assert np.abs(lips[closed_after:] - CLOSED).max() < 0.1
        assert lips[10:45, 0].min() > 0


def test_recorded_speech_in_pieces_gives_what_the_whole_gives(networks):
    waveform = np.concatenate([voice(70), np.zeros(40 * SAMPLES_PER_STEP, np.float32), voice(150)])
    pieces = np.split(waveform, np.arange(5000, len(waveform), 17_000))
    assert np.allclose(spoken(networks, pieces), spoken(networks, [waveform]), atol=1e-5)


def test_silence_is_judged_alike_in_pieces_and_at_once(networks):
    waveform = np.concatenate([voice(40), np.zeros(60 * SAMPLES_PER_STEP, np.float32), voice(130) * 0.1, voice(70)])
    whole = silence_weight(waveform)
    lips = spoken(networks, [waveform])
    assert np.array_equal(np.abs(lips - CLOSED).max(1) < 1e-6, whole == 1)


def test_lips_waver_less_than_the_network_and_where_they_go_is_left():
    generator = np.random.default_rng(0)
    slow = np.sin(np.linspace(0, 6, 50))[:, None] * np.ones(12)
    wavering = slow + 0.2 * (-1.0) ** np.arange(50)[:, None] + 0.02 * generator.standard_normal((50, 12))
    assert np.abs(calmed(wavering) - slow)[1:-1].max() < 0.1
    assert np.array_equal(calmed(wavering)[[0, -1]], wavering[[0, -1]])


def test_references_cover_the_lips_from_closed_to_open():
    opening = np.array([0.5, 0.1, 0.9, 0.12, 0.5, 0.3])
    lips = np.zeros((6, 12), np.float32)
    lips[:, 0] = opening
    assert choose_references(lips, opening) == [1, 5, 0, 2]
    assert choose_references(lips[:1], opening[:1]) == [0, 0, 0, 0]


def test_identity_takes_the_closed_mouth_from_the_most_closed_frames(networks):
    crops = [np.full((160, 160, 3), 10 + 10 * i, np.uint8) for i in range(20)]
    identity = Identity.of(networks, crops)
    own = 15 / 255  # the mean of the two darkest of twenty
    pressed = own + PRESS * (own - identity.lips.reference[:, 0].mean())
    assert identity.lips.closed[0] == pytest.approx(pressed, abs=0.01)
    assert np.all(np.diff(identity.lips.reference[:, 0]) > 0)


@given(st.integers(0, 2**32 - 1))
def test_a_face_that_was_seen_speaking_opens_its_own_way_by_as_much(seed):
    generator = np.random.default_rng(seed)
    direction, motion = generator.standard_normal((2, 12))
    opened = generator.standard_normal(12)
    opened += (2 * SPOKEN - opened @ direction) * direction / (direction @ direction)
    turned = motion + motion @ own_way(opened, direction)
    assert turned @ direction == pytest.approx(motion @ direction, abs=1e-4), "the opening itself is what was asked for"
    generic = direction / (direction @ direction)
    assert np.allclose(generic + generic @ own_way(opened, direction), opened / (2 * SPOKEN), atol=1e-4)


def test_a_face_that_was_not_seen_to_open_has_no_way_of_its_own():
    direction = np.eye(12)[0]
    assert not own_way(np.zeros(12), direction).any() and not own_way(-direction, direction).any()
    extents = [-1, 0, 0.1 * SPOKEN, 0.5 * SPOKEN, SPOKEN, 3 * SPOKEN]
    assert [seen_speaking(extent * direction, direction) for extent in extents] == pytest.approx([0, 0, 0.01, 0.25, 1, 1])


SPEAKS = 0.6 * np.arange(12, dtype=np.float32) / 11  # from closed to open


def tell_how_mouths_open(networks, monkeypatch):
    monkeypatch.setitem(networks.bundle.manifest["lips"], "spoken", SPEAKS.tolist())
    monkeypatch.setitem(networks.bundle.manifest["lips"], "opening", [0.0] * 11 + [1.0])


def test_a_face_at_rest_is_taken_to_open_as_faces_do(networks, monkeypatch):
    tell_how_mouths_open(networks, monkeypatch)
    identity = Identity.of(networks, [np.full((160, 160, 3), 40, np.uint8)])
    closed = networks.lips(np.full((1, 160, 160, 3), 40, np.uint8))[0]
    assert identity.lips.reference == pytest.approx(closed + np.linspace(0, 1, 4)[:, None] * SPEAKS, abs=1e-5)
    assert identity.lips.closed == pytest.approx(closed, abs=1e-5), "what is imagined does not press the lips"
    further = closed + SPEAKS + (closed + SPEAKS) @ identity.lips.turn - identity.lips.shift
    assert further == pytest.approx(closed + AT_REST * SPEAKS, abs=1e-5), "what nobody saw is asked for more"
    assert closed @ identity.lips.turn - identity.lips.shift == pytest.approx(0, abs=1e-5), "and a closed mouth stays closed"
    nobody = lips_of(None, networks)
    assert nobody.reference == pytest.approx(nobody.closed + np.linspace(0, 1, 4)[:, None] * SPEAKS, abs=1e-5)


def test_a_face_that_was_seen_to_open_speaks_by_what_it_showed(networks, monkeypatch):
    tell_how_mouths_open(networks, monkeypatch)
    monkeypatch.setitem(networks.bundle.manifest["lips"], "opening", [1.0] + [0.0] * 11)  # what the stand-in reads from a picture
    wide = [np.full((160, 160, 3), level, np.uint8) for level in (0, 60, 120, 180)]
    shown = networks.lips(np.stack(wide))
    assert shown[-1, 0] - shown[0, 0] > SPOKEN
    mouth = Identity.of(networks, wide).lips
    assert mouth.reference == pytest.approx(shown, abs=1e-5)
    mean = shown.mean(0)
    assert mean @ mouth.turn - mouth.shift == pytest.approx(0, abs=1e-5), "it moves about its own middle"


def test_a_smile_in_a_photo_is_not_taken_for_a_closed_mouth(networks, monkeypatch):
    lips = networks.bundle.manifest["lips"]
    monkeypatch.setitem(lips, "opening", [1.0] + [0.0] * 11)  # what the stand-in reads from a picture
    monkeypatch.setitem(lips, "spoken", [0.6] + [0.0] * 11)

    def of_photo(level):
        return Identity.of(networks, [np.full((160, 160, 3), level, np.uint8)])

    monkeypatch.setitem(lips, "closed", [0.0] * 12)
    serious, smiling, laughing = of_photo(50), of_photo(140), of_photo(250)  # read as 0.2, 0.55 and nearly 1 open
    assert serious.lips.closed[0] == pytest.approx(50 / 255, abs=0.01), "people's closed mouths differ by as much"
    assert smiling.lips.closed[0] == pytest.approx(SEEMS_CLOSED, abs=0.01)
    assert smiling.lips.reference[[0, -1], 0] == pytest.approx([SEEMS_CLOSED, SEEMS_CLOSED + 0.6], abs=0.01)
    assert laughing.lips.closed[0] == pytest.approx(250 / 255 - 0.6, abs=0.01), "and no mouth closes further than mouths open"


def test_a_bundle_that_does_not_say_how_mouths_open_leaves_a_face_as_it_is(networks):
    assert not networks.bundle.lips_spoken.any()
    identity = Identity.of(networks, [np.full((160, 160, 3), 40, np.uint8)])
    assert np.ptp(identity.lips.reference, axis=0).max() == 0


def test_a_way_that_is_found_in_the_middle_of_speech_is_taken_up_without_a_jump(networks):
    to_lips = SpeechToLips(networks, np.zeros((4, 12), np.float32), np.zeros(12, np.float32), new_steps=1)
    wide = np.zeros((12, 12), np.float32)
    wide[0, 1] = 3.0
    before, after = np.split(voice(120), [60 * SAMPLES_PER_STEP])
    said = [to_lips.push(before)]
    to_lips.speak_as(np.zeros((4, 12), np.float32), np.zeros(12, np.float32), wide)
    said += [to_lips.push(piece) for piece in np.split(after, 60)]
    lips = np.concatenate(said)
    lips = lips[lips[:, 0] > 0.1]  # of a mouth that speaks
    share = lips[:, 1] / lips[:, 0]
    assert len(share) > 80 and not share[:20].any(), "until then as the network says"
    assert share[-10:] == pytest.approx(3, rel=0.01)
    assert np.abs(np.diff(share)).max() < 1, "threefold, and never at once"


def test_read_ahead_gives_everything_in_order_and_passes_errors_on():
    assert list(read_ahead(range(100), 3)) == list(range(100))

    def broken():
        yield 1
        raise ValueError("the source broke")

    items = read_ahead(broken(), 3)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the source broke"):
        next(items)


def test_read_ahead_stops_an_endless_source_when_nobody_reads_on():
    made = []
    before = threading.active_count()

    def endless():
        while True:
            made.append(1)
            yield 1

    items = read_ahead(endless(), 3)
    next(items)
    items.close()
    assert len(made) < 10
    assert threading.active_count() == before
