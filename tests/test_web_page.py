"""The service's page in a real headless Chromium on a real session: the picture plays, speech moves the mouth, the buttons work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from faces import HEIGHT, MOUTH, WIDTH, write_faces, write_speech
from serving import StandIn, live, serving
from tiny_bundle import tiny_bundle

pytest.importorskip("aiohttp", reason="aiohttp is missing: pip install -e '.[serve]'")
api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[dev]'")

from flashlips_edge.serve import webrtc  # noqa: E402
from flashlips_edge.session import LipSync  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]
TOKEN = "correct-horse-battery"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: sudo apt-get install chromium")
needs_aiortc = pytest.mark.skipif(webrtc.why_none() is not None, reason=f"{webrtc.why_none()}")

# mean brightness of a rectangle of the live picture, be it the video or the canvas, in the avatar's pixels
BRIGHTNESS = """([x, y, width, height]) => {
  const shown = $("picture").hidden ? $("video") : $("picture");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(shown, x, y, width, height, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  return pixels.reduce((sum, value, i) => sum + (i % 4 < 3 ? value : 0), 0) / (3 * width * height);
}"""
COUNTER = """(stage) => {  // what went into a stage, as the page shows it
  const row = [...$("counters").rows].find((row) => row.cells[0].textContent === stage);
  return Number(row.cells[1].textContent);
}"""
HEARD = """async () => {
  const stats = [...(await peer.getStats()).values()];
  return stats.some((one) => one.type === "inbound-rtp" && one.kind === "audio" && one.totalAudioEnergy > 0);
}"""
PLOTTED_COLOURS = """() => {
  const plot = $("plot");
  return new Set(new Uint32Array(plot.getContext("2d").getImageData(0, 0, plot.width, plot.height).data.buffer)).size;
}"""
LINK_DOWN = "() => { window.again = connect; connect = () => {}; socket.close(); }"
FAILED_TRY = "() => socket.onclose(new CloseEvent('close'))"
LINK_UP = "() => { connect = again; connect(); }"
SLOW_MICROPHONE = """() => {  // the browser asks its user, until answer() is called
  const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media), answered = new Promise((done) => (window.answer = done));
  window.opened = [];
  media.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    opened.push(stream);
    await answered;
    return stream;
  };
}"""
MICROPHONE_IS_OFF = """() => {
  const live = opened.some((stream) => stream.getTracks().some((track) => track.readyState === "live"));
  return opened.length > 0 && !live && !$("microphone").classList.contains("on");
}"""
SLOW_DECODER = """() => {  // files are decoded once decode() is called, the last one first
  const now = BaseAudioContext.prototype.decodeAudioData;
  window.waiting = [];
  BaseAudioContext.prototype.decodeAudioData = async function (data) {
    await new Promise((done) => waiting.unshift(done));
    return now.call(this, data);
  };
  window.decode = () => waiting.forEach((done, i) => setTimeout(done, 500 * i));
}"""
MOUTH_BOX = [MOUTH[1].start, MOUTH[0].start, MOUTH[1].stop - MOUTH[1].start, MOUTH[0].stop - MOUTH[0].start]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def face(tmp_path_factory) -> Iterator[LipSync]:
    """A live session: where somebody speaks loudly, the mouth is brighter."""
    folder = tmp_path_factory.mktemp("face")
    bundle = tiny_bundle(folder / "bundle")
    with LipSync.open(bundle.folder, avatar=write_faces(folder / "face.mp4", 50), threads=1) as session:
        yield session


@contextmanager
def opened(browser: Any, address: str) -> Iterator[Any]:
    """A page of the service; at its end nothing has gone wrong in it, and it has asked no other host for anything."""
    with browser.new_context() as context:
        page = context.new_page()
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        host = address.split("//")[1].split("/")[0]
        assert not errors
        assert not [url for url in asked if host not in url and not url.startswith(("blob:", "data:"))]


def until(page: Any, condition: str, *arguments: Any) -> None:
    """Wait for a condition, a JavaScript function, of the page."""
    page.wait_for_function(condition, arg=arguments[0] if arguments else None, timeout=20_000)


def seconds(session: StandIn) -> float:
    """How much sound was pushed into it."""
    return sum(len(pcm) / rate for pcm, rate in session.pushed)


def until_pushed(page: Any, session: StandIn, least: float) -> None:
    """Wait until so many seconds of sound have come."""
    for _ in range(200):
        if seconds(session) >= least:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"{seconds(session):.2f} s of sound came, not {least:g} s")


@needs_aiortc
def test_the_picture_plays_and_speech_from_a_file_moves_the_mouth_until_it_is_interrupted(browser, face, tmp_path) -> None:
    sound = write_speech(tmp_path / "speech.wav", 60)
    with serving(face) as url, opened(browser, url) as page:
        until(page, "() => document.body.dataset.way === 'webrtc' && $('video').currentTime > 1")
        assert page.evaluate("[$('video').videoWidth, $('video').videoHeight]") == [WIDTH, HEIGHT]
        frames = page.evaluate("$('video').getVideoPlaybackQuality().totalVideoFrames")
        until(page, "(frames) => $('video').getVideoPlaybackQuality().totalVideoFrames > frames + 10", frames)
        assert "synthetic" in page.inner_text("#stage").lower()

        closed = page.evaluate(BRIGHTNESS, MOUTH_BOX)
        page.set_input_files("#file", sound)
        until(page, f"([box, level]) => ({BRIGHTNESS})(box) > level", [MOUTH_BOX, closed + 15])
        until(page, "() => $('state').textContent.startsWith('speaking')")
        assert "of 60.0 s sent" in page.inner_text("#note")
        until(page, HEARD)

        page.click("#interrupt")
        until(page, "() => $('state').textContent.startsWith('silent')")
        until(page, f"([box, level]) => ({BRIGHTNESS})(box) < level", [MOUTH_BOX, closed + 5])
        assert face.stats().epoch == 1 and page.inner_text("#note") == "interrupted"


@needs_aiortc
def test_counters_and_plot_move(browser, face) -> None:
    with serving(face) as url, opened(browser, url) as page:
        until(page, "() => $('counters').rows.length > 3 && past.length > 2")
        for stage in ("pictures", "show", "sink serve"):
            until(page, f"before => ({COUNTER})('{stage}') > before + 10", page.evaluate(COUNTER, stage))
        assert page.evaluate(PLOTTED_COLOURS) > 5
        assert "ms from pushed sound to hearing it" in page.inner_text("#key")


@needs_aiortc
def test_the_microphone_is_heard(browser, face) -> None:
    with serving(face) as url, opened(browser, url) as page:
        until(page, "() => document.body.dataset.way === 'webrtc'")
        until(page, "() => $('counters').rows.length > 3")
        before = page.evaluate(COUNTER, "sound in")
        page.click("#microphone")
        until(page, "() => $('note').textContent.startsWith('listening') && $('state').textContent.startsWith('speaking')")
        until(page, f"before => ({COUNTER})('sound in') > before + 10", before)
        page.click("#microphone")
        until(page, "() => $('state').textContent.startsWith('silent')")


@needs_aiortc
def test_the_kiosk_page_shows_the_picture_alone(browser, face) -> None:
    with serving(face) as url, opened(browser, f"{url}/kiosk") as page:
        until(page, "() => document.body.dataset.way === 'webrtc' && $('video').currentTime > 0.5")
        assert page.evaluate("[$('video').clientWidth, $('video').clientHeight]") == page.evaluate("[innerWidth, innerHeight]")
        assert not page.is_visible("#interrupt")
        assert page.is_visible("#synthetic")


def test_without_webrtc_the_page_shows_jpeg_and_says_so(browser, monkeypatch) -> None:
    monkeypatch.setattr(webrtc, "aiortc", None)
    session = StandIn()
    with serving(session, token=TOKEN) as url, opened(browser, f"{url}/#token={TOKEN}") as page:
        until(page, "() => document.body.dataset.way === 'jpeg'")
        assert "no WebRTC" in page.inner_text("#link")
        image = np.full((48, 64, 3), 30, np.uint8)
        image[:, 32:] = 200
        with live(session, image):
            until(page, f"() => Math.abs(({BRIGHTNESS})([0, 0, 28, 48]) - 30) < 3 && Math.abs(({BRIGHTNESS})([36, 0, 28, 48]) - 200) < 3")
            until(page, "() => heard.state === 'running' && sounding.size > 0")


def test_a_page_without_the_token_says_that_it_is_refused(browser) -> None:
    with serving(StandIn(), token=TOKEN) as url, opened(browser, f"{url}/#token=wrong-horse-battery") as page:
        until(page, "() => $('link').textContent.includes('token')")


@pytest.mark.parametrize("token", ["Zm9vYmFyYmF6+cXV4/w==", "100%&#-correct-horses"])
def test_a_token_of_any_letters_works_in_the_address(browser, token) -> None:
    written = token if "+" in token else quote(token, safe="")
    for fragment in (written, quote(token, safe="")):
        with serving(StandIn(), token=token) as url, opened(browser, f"{url}/#token={fragment}") as page:
            until(page, "() => hello !== null")


def test_another_token_in_the_address_is_taken_at_once(browser) -> None:
    with serving(StandIn(), token=TOKEN) as url, opened(browser, f"{url}/#token=wrong-horse-battery") as page:
        until(page, "() => $('link').textContent.includes('refused')")
        page.goto(f"{url}/#token={TOKEN}")
        until(page, "() => hello !== null")


@pytest.mark.parametrize("end", ["$('microphone').click()", "$('interrupt').click()", "socket.close()"])
def test_a_microphone_that_is_ended_while_the_browser_asks_stays_off(browser, end) -> None:
    session = StandIn()
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        page.evaluate(SLOW_MICROPHONE)
        page.click("#microphone")
        until(page, "() => opened.length === 1")
        page.evaluate(end)
        until(page, "() => !$('microphone').classList.contains('on')")
        page.evaluate("answer()")
        until(page, MICROPHONE_IS_OFF)
        assert "say_silence" not in session.asked and not session.pushed


def test_a_microphone_that_cannot_be_heard_is_switched_off(browser) -> None:
    with serving(StandIn()) as url, opened(browser, url) as page:
        page.evaluate(SLOW_MICROPHONE)
        page.evaluate("() => { AudioWorklet.prototype.addModule = async () => { throw Error('out of memory'); }; answer(); }")
        page.click("#microphone")
        until(page, MICROPHONE_IS_OFF)
        assert page.inner_text("#note") == "no microphone: out of memory"


def test_nothing_that_a_microphone_heard_comes_after_the_interruption(browser, monkeypatch) -> None:
    session = StandIn()
    before: list[int] = []
    monkeypatch.setattr(session, "interrupt", lambda: before.append(len(session.pushed)))
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        for once in range(1, 6):
            page.click("#microphone")
            until_pushed(page, session, once * 0.2)
            page.click("#interrupt")
            page.wait_for_timeout(300)
            assert len(before) == once and before[-1] == len(session.pushed)


def test_a_microphone_that_is_refused_late_stops_no_file(browser, tmp_path) -> None:
    session = StandIn()
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => new Promise((_, no) => (window.refuse = no)); }")
        page.click("#microphone")
        page.set_input_files("#file", write_speech(tmp_path / "speech.wav", 2))
        until(page, "() => $('note').textContent.endsWith('sent')")
        page.evaluate("refuse(Error('no'))")
        until(page, "() => $('note').textContent === 'speech.wav: 2.0 of 2.0 s sent'")
        until_pushed(page, session, 1.99)


def test_of_two_files_the_one_chosen_last_is_said_to_its_end(browser, tmp_path) -> None:
    session = StandIn()
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        page.evaluate(SLOW_DECODER)
        page.set_input_files("#file", write_speech(tmp_path / "first.wav", 3))
        page.set_input_files("#file", write_speech(tmp_path / "last.wav", 1))
        until(page, "() => waiting.length === 2")
        page.evaluate("decode()")
        until(page, "() => $('note').textContent === 'last.wav: 1.0 of 1.0 s sent'")
        page.wait_for_timeout(1000)
        assert seconds(session) == pytest.approx(1, abs=0.01)
        assert session.asked == ["say_silence"]


def test_a_microphone_that_is_switched_on_without_a_link_is_heard_once_there_is_one(browser) -> None:
    session = StandIn()
    with serving(session, token=TOKEN) as url, opened(browser, f"{url}/#token={TOKEN}") as page:
        until(page, "() => hello !== null")
        page.evaluate(LINK_DOWN)
        until(page, "() => hello === null")
        page.click("#microphone")
        until(page, "() => $('note').textContent.startsWith('listening')")
        page.evaluate(FAILED_TRY)
        page.evaluate(LINK_UP)
        until_pushed(page, session, 0.5)
        assert {rate for _, rate in session.pushed} == {page.evaluate("new AudioContext().sampleRate")}
        page.evaluate(LINK_DOWN)
        until(page, "() => hello === null && !$('microphone').classList.contains('on') && $('note').textContent === ''")


def test_a_file_that_is_chosen_without_a_link_is_said_as_a_whole_once_there_is_one(browser, tmp_path) -> None:
    session = StandIn()
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        page.evaluate(LINK_DOWN)
        until(page, "() => hello === null")
        page.set_input_files("#file", write_speech(tmp_path / "speech.wav", 2))
        page.wait_for_timeout(1000)
        page.evaluate(FAILED_TRY)
        page.evaluate(LINK_UP)
        until(page, "() => $('note').textContent === 'speech.wav: 2.0 of 2.0 s sent'")
        until_pushed(page, session, 1.99)
        assert seconds(session) == pytest.approx(2, abs=0.01)


def test_a_service_that_was_started_again_is_heard_without_webrtc(browser, monkeypatch) -> None:
    monkeypatch.setattr(webrtc, "aiortc", None)
    session = StandIn()
    session.now.epoch, session.now.speaking = 3, True
    with serving(session) as url, opened(browser, url) as page:
        until(page, "() => document.body.dataset.way === 'jpeg' && $('state').textContent === 'speaking'")
        with live(session):
            until(page, "() => sounding.size > 0")
        page.evaluate(LINK_DOWN)
        until(page, "() => document.body.dataset.way === 'none' && $('state').textContent === '' && sounding.size === 0")
        session.now.epoch = session.number = 0
        page.wait_for_timeout(300)  # until the service has seen it, else it tells of an interruption
        page.evaluate(LINK_UP)
        until(page, "() => document.body.dataset.way === 'jpeg'")
        assert page.evaluate("origin") is None
        with live(session):
            until(page, "() => sounding.size > 0")


def test_clips_text_and_problems(browser) -> None:
    session = StandIn()
    session.now.problems["camera"] = "the camera was unplugged"
    with serving(session, voice=Echo()) as url, opened(browser, url) as page:
        until(page, "() => $('problems').textContent === 'camera: the camera was unplugged'")
        page.click("#clips >> text=wave")
        page.fill("#text", "good evening")
        page.click("#say")
        session.now.problems.clear()
        until(page, "() => $('problems').textContent === ''")
    assert session.clip == "wave"
    assert [int(pcm[0]) for pcm, _ in session.pushed] == [len("good evening")]


def test_what_is_asked_for_without_a_link_is_not_done_and_the_page_says_so(browser) -> None:
    session = StandIn()
    with serving(session, voice=Echo()) as url, opened(browser, url) as page:
        until(page, "() => hello !== null")
        page.fill("#text", "good evening")
        page.evaluate(LINK_DOWN)
        until(page, "() => hello === null")
        for asked in ("#clips >> text=wave", "#say", "#interrupt"):
            page.evaluate("note('')")
            page.click(asked)
            assert page.inner_text("#note") == "no connection: ask again when there is one"
        assert page.input_value("#text") == "good evening"
        page.evaluate(LINK_UP)
        until(page, "() => hello !== null")
        page.click("#say")
        until_pushed(page, session, 10 / 16_000)
    assert session.clip != "wave" and len(session.pushed) == 1 and "interrupt" not in session.asked


class Echo:
    """A voice whose samples tell the length of the text."""

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        yield np.full(10, len(text), np.int16), 16_000

    def stop(self) -> None: ...
