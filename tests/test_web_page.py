"""The service's page in a real headless Chromium on a real session: the picture plays, speech moves the mouth, the buttons work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


class Echo:
    """A voice whose samples tell the length of the text."""

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        yield np.full(10, len(text), np.int16), 16_000

    def stop(self) -> None: ...
