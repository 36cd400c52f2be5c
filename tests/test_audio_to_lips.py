"""Speech to lips is taught by what was said: tracks on one clock, synthetic speech with its lips, disguises that keep the time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from faces import speech  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.speech.features import SAMPLES_PER_STEP, log_mel  # noqa: E402
from flashlips_edge.training import another_face, audio_to_lips  # noqa: E402
from flashlips_edge.training.another_voice import another_room, another_throat, echo, faster  # noqa: E402
from flashlips_edge.training.audio_to_lips import BATCH, Draw, SpeechTask, chances_of, split  # noqa: E402
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from flashlips_edge.training.rehearsal import Constants, Rehearsal, rehearse  # noqa: E402
from flashlips_edge.training.speech_tracks import MARGIN_STEPS, SYNTHETIC, Track, closed_mouth, resting, with_margins  # noqa: E402
from flashlips_edge.training.synthetic_head import Lips, lips_track, speak  # noqa: E402
from flashlips_edge.training.synthetic_speech import SENTENCES, Face, synthetic_tracks, visible  # noqa: E402

OPENING = np.eye(12, dtype=np.float32)[0]


def loudness(waveform: np.ndarray) -> np.ndarray:
    """Root mean square of each step."""
    return np.sqrt(np.square(waveform[: len(waveform) // SAMPLES_PER_STEP * SAMPLES_PER_STEP].reshape(-1, SAMPLES_PER_STEP)).mean(1))


def loud_track(name: str = "test.loud", seconds: float = 4.0, seed: int = 0) -> Track:
    """A voice that swells and fades, and a mouth that opens as it is loud."""
    generator = np.random.default_rng(seed)
    swell = generator.uniform(0, 1, int(seconds * 4) + 1)  # four times a second
    slow = np.interp(np.arange(int(seconds * 16_000)) / 4000, np.arange(len(swell)), swell)
    waveform = (speech(seconds) * slow).astype(np.float32)
    lips = np.zeros((int(seconds * 25), 12), np.float32)
    lips[:, 0] = 8 * loudness(waveform)
    return with_margins(name, waveform, lips, np.zeros(8, np.float32), OPENING)


def draw_of(tracks: list[Track]) -> Draw:
    return Draw(tracks, chances_of(tracks), 50, 10, OPENING, np.ones(12), hears_waveforms=True)


def test_silence_before_and_after_a_track_is_spoken_by_a_closed_mouth() -> None:
    track = loud_track()
    assert len(track.waveform) == SAMPLES_PER_STEP * len(track.lips)
    closed = closed_mouth(track.lips[MARGIN_STEPS:-MARGIN_STEPS], OPENING)
    for outer in (track.lips[:10], track.lips[-10:]):
        assert np.allclose(outer, closed, atol=1e-6)
    assert np.abs(np.diff(track.lips[:, 0])).max() < np.ptp(track.lips[:, 0]) / 2, "no jump where the margin begins"


def test_a_drawn_window_says_what_its_lips_show() -> None:
    draw, generator = draw_of([loud_track(seed=i) for i in range(4)]), np.random.default_rng(0)
    together = []
    for _ in range(4):
        audio, lips, emotion, references, previous = (x.numpy() for x in draw(generator))
        assert (audio.shape, lips.shape, emotion.shape) == ((BATCH, 32_000), (BATCH, 50, 12), (BATCH, 8))
        assert (references.shape, previous.shape) == ((BATCH, 4, 12), (BATCH, 10, 12))
        assert np.abs(lips[:, 0, 0] - previous[:, -1, 0]).max() < np.ptp(lips[..., 0]) / 2, "what came before leads on to the window"
        assert (np.diff(references[..., 0], axis=1) >= 0).all()
        together += [np.corrcoef(loudness(a), w)[0, 1] for a, w in zip(audio, lips[..., 0]) if w.std() > 0.1]
    assert np.median(together) > 0.7, "speed, room and noise leave sound and lips on one clock"


def test_a_face_that_rests_is_spoken_for_by_its_closed_mouth_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    track = loud_track(seconds=4)
    closed = {lips.tobytes() for lips in resting(track.lips, OPENING)}
    draw, seen = draw_of([track]), {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(audio_to_lips, "RESTING_SHARE", share)
        rows = [draw.row(track, np.random.default_rng(i)) for i in range(20)]
        seen[share] = {lips.tobytes() for row in rows for lips in row[3].astype(np.float32)}
        assert max(np.ptp(row[1] @ OPENING) for row in rows) > 0.3, "the window itself speaks"
    assert seen[1.0] <= closed and not seen[0.0] <= closed


def test_another_face_opens_its_own_way_and_its_references_show_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(another_face, "SHARE", 1.0)
    monkeypatch.setattr(audio_to_lips, "RESTING_SHARE", 0.0)
    track = loud_track()
    draw, ways = draw_of([track]), []
    for i in range(20):
        _, lips, _, references, previous = draw.row(track, np.random.default_rng(i))
        seen = np.concatenate([lips, references, previous])
        _, sizes, directions = np.linalg.svd(seen - seen.mean(0))
        assert sizes[1] < 1e-4 * sizes[0], "all of a window moves along one line, as its track does"
        assert (np.diff(references @ OPENING) >= 0).all()
        ways.append(abs(directions[0, 0]))
    assert 0.6 < np.median(ways) < 0.98, "by some 25 degrees another line"


@pytest.mark.parametrize("frames", [25, 26])
def test_the_shortest_clips_that_are_prepared_can_be_drawn(frames: int) -> None:
    track = loud_track(seconds=frames / 25)
    draw, generator = draw_of([track]), np.random.default_rng(0)
    for _ in range(60):
        audio, lips, *_ = draw.row(track, generator)
        assert audio.shape == (32_000,) and lips.shape == (50, 12)


def test_batches_are_the_same_for_the_same_step() -> None:
    draw = draw_of([loud_track()])
    first, second = (draw(np.random.default_rng([0, 5])) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@given(st.floats(0.75, 1.3))
def test_faster_speech_is_as_long_as_asked_and_higher(factor: float) -> None:
    time_s = np.arange(round(32_000 * factor)) / 16_000
    tone = np.sin(2 * np.pi * 500 * time_s).astype(np.float32)
    result = faster(tone, 32_000)
    assert len(result) == 32_000
    assert np.abs(np.fft.rfft(result)).argmax() / 2 == pytest.approx(500 * factor, abs=2)


@given(st.integers(0, 200))
def test_disguises_stay_in_range_and_in_time(seed: int) -> None:
    waveform = np.concatenate([np.zeros(16_000, np.float32), speech(1.0)])
    result = another_room(waveform, np.random.default_rng(seed))
    assert result.dtype == np.float32 and result.shape == waveform.shape and np.abs(result).max() <= 1
    loud = loudness(result)
    assert loud[26:].mean() > loud[:24].mean()
    mel = another_throat(log_mel(waveform), np.random.default_rng(seed))
    assert mel.dtype == np.float32 and mel.shape == (200, 80) and np.isfinite(mel).all() and mel.min() >= -1


def test_an_echo_follows_its_sound() -> None:
    click = np.zeros(16_000, np.float32)
    click[4000] = 1
    result = echo(click, 0.3, 0.5, np.random.default_rng(0))
    assert np.abs(result[:3999]).max() < 1e-6 and result[4000] == pytest.approx(1)
    assert np.square(result[4001:]).sum() == pytest.approx(0.25, rel=0.05)
    assert np.abs(result[4000 + 4800 :]).max() < 1e-6


def test_the_face_of_synthetic_speech_is_found_again() -> None:
    generator = np.random.default_rng(0)
    parameters = [generator.random((40, 6)) for _ in range(10)]
    shape = generator.standard_normal((6, 12))
    people = [p @ shape + p[:, :1] ** 2 + generator.standard_normal(12) for p in parameters]  # each has an offset of its own
    face = Face(parameters, people)
    assert face.explained > 0.99
    asked = generator.random((30, 6))
    given = face(asked)
    wanted = asked @ shape + asked[:, :1] ** 2
    wrong = (given - given.mean(0)) - (wanted - wanted.mean(0))
    assert np.square(wrong).mean() < 0.01 * wanted.var(0).mean()


def test_pressed_lips_are_seen_closed_whatever_the_jaw_does() -> None:
    assert np.array_equal(visible([Lips(jaw=0.8, press=1.0), Lips(jaw=0.8, tuck=1.0), Lips(jaw=0.8)])[:, 0], np.float32([0, 0, 0.8]))


def test_synthetic_speech_shows_its_phonemes(espeak: str) -> None:
    generator = np.random.default_rng(0)
    parameters = generator.random((200, 6))
    face = Face([parameters], [np.pad(parameters, ((0, 0), (0, 6)))])
    tracks = synthetic_tracks(2 * sum(map(len, SENTENCES.values())), face, OPENING, 8)
    assert {t.name.split(".")[1] for t in tracks} == set(SENTENCES)
    assert all(t.emotion[SYNTHETIC] == 1 and t.set_name == "synthetic" for t in tracks)
    assert len({t.waveform.tobytes() for t in tracks}) == len(tracks)
    together = [np.corrcoef(loudness(t.waveform), t.lips[:, 0])[0, 1] for t in tracks]
    assert np.mean(together) > 0.3, "an open mouth is louder than a closed one"


def test_a_sentence_of_bilabials_closes_the_mouth_in_the_sound_of_its_track(espeak: str) -> None:
    _, phonemes = speak("mama papa baba", "en-gb")
    jaw = visible(lips_track(phonemes))[:, 0]
    closures = [p for p in phonemes if p.phoneme in ("m", "p", "b")]
    at = [int((p.start_s + p.end_s) / 2 * 25) for p in closures]
    assert len(at) == 6 and jaw[at].max() < 0.1 < jaw.max()


def test_left_out_people_are_watched_and_not_learned_from() -> None:
    tracks = [loud_track(f"grid.s{i}_{j}", 2.5) for i in (1, 2) for j in range(3)]
    taught, watched = split(tracks, ["grid.s2_"])
    assert [t.name for t in watched] == ["grid.s2_0", "grid.s2_1", "grid.s2_2"] and len(taught) == 3
    with pytest.raises(UserError, match=r"--leave-out grid\.s9"):
        split(tracks, ["grid.s9"])
    with pytest.raises(UserError, match=r"--leave-out grid\.s9: .*there is no clip in which anybody speaks"):
        split([], ["grid.s9"])


def test_a_rehearsal_hears_through_the_run_path() -> None:
    class Loudness(torch.nn.Module):
        """Speech [B, T, 1] of a log-mel: 1 where it is loud."""

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            return (mel.unflatten(1, (-1, 4)).mean((2, 3))[..., None] > -0.2).float()

    class Open(torch.nn.Module):
        """Lips [B, T, 12] that open by speech."""

        def forward(self, noise, speech, emotion, reference_lips, previous_lips):
            return torch.nn.functional.pad(speech, (0, 11)) + noise

    flow = {"window": 50, "previous": 10, "emotions": 8}
    weight = torch.nn.Linear(1, 1)  # where the networks are is told by their parameters
    ear, mouth = Loudness(), Open()
    ear.weight, mouth.weight = weight, weight
    tracks = [loud_track(seed=i) for i in range(3)]
    constants = Constants(OPENING, np.zeros(12, np.float32), OPENING)
    for new_steps in (None, 5):
        result = rehearse(Rehearsal(ear, mouth, flow), tracks, constants, new_steps)
        assert result["opening_r"] > 0.6


def write_clip(folder: Path, seconds: float = 4.0) -> None:
    """A talking clip of 25 noisy pictures a second."""
    folder.mkdir(parents=True)
    count = int(25 * seconds)
    np.save(folder / "crops.npy", np.random.default_rng(len(folder.name)).integers(0, 255, (count, 160, 160, 3)).astype(np.uint8))
    np.save(folder / "pts_ns.npy", np.arange(count) * 40_000_000)
    np.save(folder / "audio.npy", speech(seconds))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """``clips`` of two people, one synthetic, and ``weights`` with an untrained lips encoder."""
    write_clip(tmp_path / "clips" / "people.a")
    still = tmp_path / "clips" / "synthetic.1"
    write_clip(still, 1.0)
    (still / "audio.npy").unlink()
    np.save(still / "params.npy", np.random.default_rng(1).random((25, 6)).astype(np.float32))
    torch.manual_seed(0)
    save_weights(tmp_path / "weights" / "lips_encoder.safetensors", LipsEncoder(**load_preset("nano")["lips"]))
    (tmp_path / "weights" / "lips.json").write_text(json.dumps({"opening": OPENING.tolist(), "closed": [0.0] * 12}))
    return tmp_path


def test_the_stage_writes_both_networks(work: Path, espeak: str) -> None:
    audio_to_lips.main(work / "clips", work / "weights", "nano", steps=2, synthetic=2)
    task = SpeechTask(load_preset("nano"))
    for name in ("speech_encoder", "audio_to_lips"):
        weights = load_file(work / "weights" / f"{name}.safetensors")
        assert weights.keys() == getattr(task, name).state_dict().keys()
    rows = [json.loads(line) for line in (work / "weights" / "speech_task.jsonl").read_text().splitlines()]
    assert "people_opening_r" in rows[-1]
    audio_to_lips.main(work / "clips", work / "weights", "nano", steps=2, synthetic=2)  # done, and the lips encoder is the same
    torch.manual_seed(1)
    save_weights(work / "weights" / "lips_encoder.safetensors", LipsEncoder(**load_preset("nano")["lips"]))
    with pytest.raises(UserError, match=r"speech_task.state.safetensors: learned from another lips encoder than the folder's; delete it"):
        audio_to_lips.main(work / "clips", work / "weights", "nano", steps=2, synthetic=2)
    (work / "weights" / "speech_task.state.safetensors").unlink()
    audio_to_lips.main(work / "clips", work / "weights", "nano", steps=1, synthetic=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"preset": "paper"}, "preset paper needs the folder"), ({"wav2vec": Path("w")}, "preset nano has a speech encoder of its own")],
    ids=["wav2vec missing", "wav2vec unused"],
)
def test_a_speech_encoder_that_does_not_fit_the_preset_is_refused(work: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        audio_to_lips.main(work / "clips", work / "weights", **arguments)


def test_synthetic_speech_needs_synthetic_people(work: Path) -> None:
    (work / "clips" / "synthetic.1" / "params.npy").unlink()
    with pytest.raises(UserError, match="no synthetic people"):
        audio_to_lips.main(work / "clips", work / "weights", "nano", steps=1, synthetic=2)
