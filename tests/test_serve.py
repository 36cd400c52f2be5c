"""The service as its clients meet it: real sockets, the session a stand-in that ticks when told."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from faces import mouth_level, speech, write_faces
from serving import BUZZ, DEADLINE_S, LEVELS, STEP, StandIn, live, serving
from tiny_bundle import tiny_bundle

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing: pip install -e '.[serve]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is missing: pip install -e '.[serve]'")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from flashlips_edge.pump.clock import SECOND_NS, ManualClock  # noqa: E402
from flashlips_edge.pump.counters import Counters  # noqa: E402
from flashlips_edge.serve import app, client, messages, webrtc  # noqa: E402
from flashlips_edge.serve.feed import Subscriber  # noqa: E402
from flashlips_edge.serve.logs import JsonFormatter  # noqa: E402
from flashlips_edge.serve.speaker import Speaker  # noqa: E402
from flashlips_edge.session import LipSync  # noqa: E402
from flashlips_edge.tts.program import Program  # noqa: E402

TOKEN = "correct-horse-battery"


class Socket:
    """A WebSocket client of the service."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse):
        self.connection = connection

    async def ask(self, kind: str, **values: Any) -> None:
        await self.connection.send_str(json.dumps({"type": kind, **values}))

    async def event(self, kind: str) -> dict[str, Any]:
        """The next event of this type; others, and binary messages, are passed over."""
        while True:
            message = await asyncio.wait_for(self.connection.receive(), DEADLINE_S)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.TEXT and (said := json.loads(message.data))["type"] == kind:
                return said

    async def any_binary(self) -> tuple[int, tuple[tuple[int, ...], bytes]]:
        """The next binary message: its kind, and its header and body."""
        while True:
            message = await asyncio.wait_for(self.connection.receive(), DEADLINE_S)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.BINARY:
                header = messages.HEADER.unpack_from(message.data)
                assert header[5] == len(message.data) - messages.HEADER.size
                return header[0], (header, message.data[messages.HEADER.size :])

    async def binary(self, kind: int) -> tuple[tuple[int, ...], bytes]:
        """Header and body of the next binary message of this kind."""
        while True:
            came, message = await self.any_binary()
            if came == kind:
                return message

    async def left(self, kind: str, number: int) -> None:
        """So many clients of this kind are left."""
        for _ in range(20 * DEADLINE_S):
            await self.ask("stats")
            if (await self.event("stats"))["clients"][kind] == number:
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"more than {number} {kind} clients are left")

    async def settled(self) -> None:
        """All that was asked before has been followed."""
        await self.ask("stats")
        await self.event("stats")


def talk(url: str, conversation: Callable[..., Awaitable[None]], clients: int = 1, **options: Any) -> None:
    """Run a conversation of this many connected clients with the service at `url`."""

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            sockets = [Socket(await session.ws_connect(f"{url}/ws", **options)) for _ in range(clients)]
            await asyncio.wait_for(conversation(*sockets), DEADLINE_S)
            for one in sockets:
                await one.connection.close()

    asyncio.run(run())


def get(url: str, method: str = "GET", **options: Any) -> tuple[int, str]:
    """Status and text of one HTTP request."""

    async def run() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.request(method, url, **options) as response:
            return response.status, await response.text()

    return asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_hello_tells_what_is_served() -> None:
    async def conversation(one: Socket) -> None:
        await one.ask("hello")
        hello = await one.event("hello")
        assert (hello["width"], hello["height"], hello["frame_rate"], hello["sample_rate"]) == (64, 48, 25.0, 48_000)
        assert hello["clips"] == ["idle", "wave"] and hello["synthetic"] is True and hello["voice"] is False

    with serving(StandIn()) as url:
        talk(url, conversation)


def test_a_real_session_speaks_what_a_client_sends(tmp_path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")  # where somebody speaks loudly, the mouth is brighter

    async def conversation(one: Socket, other: Socket) -> None:
        async def mouth() -> tuple[int, int, float]:
            (_, epoch, pts_ns, *_), body = await other.binary(messages.JPEG)
            return epoch, pts_ns, mouth_level(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR))

        await other.ask("subscribe", frames="jpeg")
        *_, closed = await mouth()
        await one.ask("subscribe", sound=True)
        await one.ask("audio", rate=24_000)
        await one.connection.send_bytes((speech(10, 24_000) * 32767).astype("<i2").tobytes())
        speaking = await one.event("speaking")
        while np.abs(np.frombuffer((await one.binary(messages.SOUND))[1], "<i2")).max() < 1000:
            pass
        while (await mouth())[2] < closed + 15:
            pass
        await one.ask("interrupt")
        assert (await one.event("silent"))["media_ns"] > speaking["media_ns"]
        while (await mouth())[2] > closed + 5:
            pass
        (epoch, before_ns, _), (_, after_ns, _) = await mouth(), await mouth()
        assert epoch == 1 and after_ns > before_ns

    with LipSync.open(bundle.folder, avatar=write_faces(tmp_path / "face.mp4", 30), threads=1) as face, serving(face) as url:
        talk(url, conversation, clients=2)
        status, text = get(f"{url}/healthz")
        assert status == 200, text
        assert 'flashlips_items_total{stage="sink serve",what="left"}' in get(f"{url}/metrics")[1]


@pytest.mark.parametrize(
    ("declared", "sent", "heard"),
    [
        ({}, np.array([[1], [-2]], "<i2"), np.array([[1], [-2]], np.int16)),
        ({"rate": 44_100, "channels": 2, "format": "f32le"}, np.array([[0.5, -1]], "<f4"), np.array([[0.5, -1]], np.float32)),
    ],
    ids=["default", "stereo float"],
)
def test_sound_reaches_the_session_as_it_was_declared(declared, sent, heard) -> None:
    async def conversation(one: Socket) -> None:
        if declared:
            await one.ask("audio", **declared)
        await one.connection.send_bytes(sent.tobytes())
        await one.ask("say_silence")
        await one.settled()

    session = StandIn()
    with serving(session) as url:
        talk(url, conversation)
    ((pcm, rate),) = session.pushed
    assert rate == declared.get("rate", 16_000) and pcm.dtype == heard.dtype
    np.testing.assert_array_equal(pcm, heard)
    assert session.asked == ["say_silence"]


def test_pictures_and_sound_come_as_subscribed() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 30, 40)
    session = StandIn()

    async def conversation(jpeg: Socket, raw: Socket) -> None:
        await jpeg.ask("subscribe", frames="jpeg", sound=True)
        await raw.ask("subscribe", frames="raw")
        await jpeg.settled()
        await raw.settled()
        session.now = replace(session.now, epoch=7)
        session.number = 5
        session.tick(image)
        header, body = await raw.binary(messages.RAW)
        assert header[:5] == (messages.RAW, 7, 200_000_000, 64, 48)
        np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(48, 64, 3), image)
        come = dict([await jpeg.any_binary(), await jpeg.any_binary()])  # in any order
        header, body = come[messages.SOUND]
        assert header[:5] == (messages.SOUND, 7, 200_000_000, 48_000, 1)
        np.testing.assert_allclose(np.frombuffer(body, "<i2"), BUZZ * 32767, atol=1)
        header, body = come[messages.JPEG]
        assert header[:5] == (messages.JPEG, 7, 200_000_000, 64, 48)
        decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(decoded.astype(int) - image).mean() < 4

    with serving(session) as url:
        talk(url, conversation, clients=2)


def test_a_picture_is_encoded_once_for_all_and_only_while_somebody_wants_it(monkeypatch) -> None:
    made = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *arguments: made.append(1) or encode(*arguments))
    session = StandIn()

    async def conversation(*sockets: Socket) -> None:
        session.tick()
        assert not made
        for one in sockets:
            await one.ask("subscribe", frames="jpeg")
            await one.settled()
        session.tick()
        for one in sockets:
            await one.binary(messages.JPEG)
        assert len(made) == 1
        for one in sockets:
            await one.ask("subscribe", frames="none")
            await one.settled()
        session.tick()
        assert len(made) == 1

    with serving(session) as url:
        talk(url, conversation, clients=5)


def test_no_more_frames_come_than_the_client_asked_for() -> None:
    session = StandIn()

    async def conversation(one: Socket) -> None:
        await one.ask("subscribe", frames="raw", max_rate=10)
        await one.settled()
        pts = []
        for _ in range(50):
            session.tick()
            await one.ask("stats")
            while (message := await one.connection.receive()).type is aiohttp.WSMsgType.BINARY:
                pts.append(messages.HEADER.unpack_from(message.data)[2] / SECOND_NS)
        assert len(pts) == pytest.approx(20, abs=1)  # of two seconds at ten a second
        assert min(np.diff(pts)) >= 0.07

    with serving(session) as url:
        talk(url, conversation)


def test_a_higher_rate_holds_at_once() -> None:
    session = StandIn()
    session.number = 100

    async def conversation(one: Socket) -> None:
        pts = []
        for rate in (0.1, 120):
            await one.ask("subscribe", frames="raw", max_rate=rate)
            await one.settled()
            for _ in range(3):
                session.tick()
                await one.ask("stats")
                while (message := await one.connection.receive()).type is aiohttp.WSMsgType.BINARY:
                    pts.append(messages.HEADER.unpack_from(message.data)[2] / SECOND_NS)
        assert pts == [4.0, 4.12, 4.16, 4.2]

    with serving(session) as url:
        talk(url, conversation)


def test_a_wrong_message_is_answered_and_the_connection_stays() -> None:
    session = StandIn()

    async def conversation(one: Socket) -> None:
        for text, field in (
            ("nonsense", "message"),
            ('{"type": "audio", "rate": 1}', "rate"),
            ('{"type": "play", "clip": "dance"}', "play"),
        ):
            await one.connection.send_str(text)
            error = await one.event("error")
            assert error["field"] == field and len(error["problem"]) < 200
        assert "give idle or wave" in error["problem"]
        await one.connection.send_bytes(b"abc")
        assert "3 bytes: it must be a multiple of 2" in (await one.event("error"))["problem"]
        await one.ask("say", text="hello")
        assert "--voice" in (await one.event("error"))["problem"]
        await one.settled()
        assert not session.pushed

    with serving(session) as url:
        talk(url, conversation)


def test_a_message_that_is_too_large_closes_the_connection(monkeypatch) -> None:
    # so little is sent before the service can close; a client that still sends may find the connection lost instead of the code
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 4096)

    async def conversation(one: Socket) -> None:
        await one.connection.send_bytes(bytes(messages.MAX_MESSAGE_BYTES))
        await one.settled()
        assert len(session.pushed) == 1
        await one.connection.send_bytes(bytes(messages.MAX_MESSAGE_BYTES + 1))
        assert (await one.connection.receive()).type is aiohttp.WSMsgType.CLOSE
        assert one.connection.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    session = StandIn()
    with serving(session) as url:
        talk(url, conversation)
    assert len(session.pushed) == 1


def test_all_clients_hear_what_happens() -> None:
    session = StandIn()

    async def conversation(one: Socket, other: Socket) -> None:
        await other.settled()
        await one.ask("interrupt")
        assert (await other.event("interrupted"))["epoch"] == 1
        session.now = replace(session.now, speaking=True, level=2, problems={"camera": "it was unplugged"})
        await other.event("speaking")
        assert (await other.event("level"))["level"] == 2
        assert await other.event("problem") == {"type": "problem", "source": "camera", "problem": "it was unplugged"}
        session.now = replace(session.now, speaking=False, problems={})
        await other.event("silent")
        assert (await other.event("problem"))["problem"] is None
        await one.ask("play", clip="wave")
        await one.settled()
        await asyncio.sleep(3 * 0.1)  # the change is seen at the service's next look
        session.clip = "idle"
        assert (await other.event("clip_ended"))["clip"] == "wave"

    with serving(session) as url:
        talk(url, conversation, clients=2)


class SlowVoice:
    """Says each word of a text as ten samples of its length, and waits between words until told."""

    def __init__(self) -> None:
        self.more = threading.Semaphore(0)
        self.stopped = threading.Event()

    def say(self, text: str):
        if text == "broken":
            raise RuntimeError("the voice has a cold")
        for word in text.split():
            assert self.more.acquire(timeout=DEADLINE_S)
            yield np.full(10, len(word), np.int16), 22_050

    def stop(self) -> None:
        self.stopped.set()


def test_a_text_is_spoken_and_an_interruption_ends_it() -> None:
    session, voice = StandIn(), SlowVoice()

    async def conversation(one: Socket) -> None:
        voice.more.release(2)
        await one.ask("say", text="hello there")
        while "say_silence" not in session.asked:
            await one.settled()
        assert [(int(pcm[0]), rate) for pcm, rate in session.pushed] == [(5, 22_050), (5, 22_050)]
        await one.ask("say", text="this is long")
        await one.ask("say", text="and this waits")
        await one.settled()
        await one.ask("interrupt")
        await one.event("interrupted")
        assert voice.stopped.is_set()
        voice.more.release(20)
        await one.ask("say", text="broken")
        assert (await one.event("problem"))["problem"] == "the voice failed: RuntimeError"
        await one.ask("say", text="again")
        assert (await one.event("problem"))["problem"] is None
        assert [int(pcm[0]) for pcm, _ in session.pushed] == [5, 5, 5]

    with serving(session, voice=voice) as url:
        talk(url, conversation)


class Behind(StandIn):
    """A session that has more to say than it can take, until `behind` is cleared."""

    def __init__(self) -> None:
        self.behind, self.asked_for_room = True, threading.Semaphore(0)
        super().__init__()

    @property
    def waiting_ns(self) -> int:
        self.asked_for_room.release()
        return 5 * SECOND_NS if self.behind else 0

    @waiting_ns.setter
    def waiting_ns(self, _: int) -> None: ...


def test_a_long_text_waits_for_room_instead_of_being_cut_off_and_an_interruption_ends_the_wait() -> None:
    session, voice = Behind(), SlowVoice()
    speaker = Speaker(session, voice)  # type: ignore[arg-type]
    voice.more.release(3)
    assert speaker.say("one three")
    for _ in range(2):
        assert session.asked_for_room.acquire(timeout=DEADLINE_S), "it looks again and again"
    assert not session.pushed
    speaker.interrupt()
    assert speaker.say("four")
    session.behind = False
    while "say_silence" not in session.asked:
        threading.Event().wait(0.01)
    assert [int(pcm[0]) for pcm, _ in session.pushed] == [4] and speaker.problem is None
    speaker.close()


def test_without_the_token_nothing_but_the_page_is_given() -> None:
    with serving(StandIn(), token=TOKEN) as url:
        right = {"Authorization": f"Bearer {TOKEN}"}
        for path, method in (("/healthz", "GET"), ("/metrics", "GET"), ("/offer", "POST"), ("/none", "GET")):
            for wrong in ({}, {"Authorization": "Bearer wrong-horse-battery"}, {"Authorization": f"Basic {TOKEN}"}):
                assert get(url + path, method, headers=wrong)[0] == 401, path
        assert get(f"{url}/healthz", headers=right)[0] == 200
        for path in ("/", "/kiosk"):
            status, page = get(url + path)
            assert status == 200 and TOKEN not in page


def status(url: str, *headers: bytes) -> int:
    """Status of a request for /healthz with these headers, whatever bytes are in them."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), DEADLINE_S) as plain:
        plain.sendall(b"\r\n".join([b"GET /healthz HTTP/1.1", *headers, b"Connection: close", b"", b""]))
        return int(plain.makefile("rb").readline().split()[1])


def test_bad_bytes_where_the_token_and_the_origin_are_checked_are_refused() -> None:
    with serving(StandIn(), token=TOKEN) as url:
        assert status(url, b"Host: 127.0.0.1", b"Authorization: Bearer \xff") == 401
    with serving(StandIn()) as url:
        assert status(url, b"Host: 127.0.0.1") == 200
        assert status(url, b"Host: 127.0.0.1", b"Origin: http://[::1") == 403
        assert status(url, b"Host: [::1") == 403


@pytest.mark.parametrize(
    "first",
    [
        '{"type": "stats"}',
        '{"type": "hello"}',
        '{"type": "hello", "token": "wrong-horse-battery"}',
        '{"type": "hello", "token": "\\ud800"}',
        "nonsense",
    ],
)
def test_a_socket_without_the_token_is_closed(first: str) -> None:
    async def conversation(one: Socket) -> None:
        await one.connection.send_str(first)
        assert (await one.connection.receive()).type is aiohttp.WSMsgType.CLOSE
        assert one.connection.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION

    with serving(StandIn(), token=TOKEN) as url:
        talk(url, conversation)


def test_a_socket_with_the_token_is_served() -> None:
    async def by_message(one: Socket) -> None:
        await one.ask("hello", token=TOKEN)
        await one.event("hello")
        await one.settled()

    async def by_header(one: Socket) -> None:
        await one.settled()

    with serving(StandIn(), token=TOKEN) as url:
        talk(url, by_message)
        talk(url, by_header, headers={"Authorization": f"Bearer {TOKEN}"})


def test_a_socket_that_says_no_hello_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(client, "HELLO_S", 0.2)

    async def conversation(one: Socket) -> None:
        closed = asyncio.ensure_future(one.connection.receive())
        while not closed.done():
            await one.connection.ping()  # is no hello
            await asyncio.wait([closed], timeout=0.1)
        assert (await closed).type is aiohttp.WSMsgType.CLOSE

    with serving(StandIn(), token=TOKEN) as url:
        talk(url, conversation)


def test_foreign_pages_are_refused() -> None:
    with serving(StandIn()) as url:
        port = url.rsplit(":", 1)[1]
        foreign = [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Origin": f"http://localhost:{port}"}]
        rebound = {"Host": f"elsewhere.example:{port}", "Origin": f"http://elsewhere.example:{port}"}
        for headers in (*foreign, rebound, {"Host": "elsewhere.example"}):
            assert get(f"{url}/healthz", headers=headers)[0] == 403, headers
            assert get(f"{url}/offer", "POST", headers=headers)[0] == 403, headers
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                talk(url, None, headers=headers)
        assert get(f"{url}/healthz", headers={"Origin": url})[0] == 200
        assert get(f"{url}/healthz", headers={"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"})[0] == 200


def test_health_says_what_is_wrong() -> None:
    clock, session = ManualClock(), StandIn()

    def health() -> tuple[int, dict]:
        status, text = get(f"{url}/healthz")
        return status, json.loads(text)

    with serving(session, clock=clock) as url:
        session.tick()
        session.now.problems["camera"] = "it was unplugged"
        assert health() == (200, {"status": "ok", "faults": {}, "problems": {"camera": "it was unplugged"}})
        clock.advance(int(1.9 * SECOND_NS))
        assert health()[0] == 200
        clock.advance(int(2.1 * SECOND_NS))
        status, body = health()
        assert status == 503 and body["faults"] == {"frames": "the last frame came 4.0 s ago"}
        session.tick()
        session.stuck = ("speech",)
        status, body = health()
        assert status == 503 and body["faults"] == {"speech": "speech hangs, or has hung too often"}
        session.stuck = ()
        assert health()[0] == 200


def test_metrics_are_prometheus() -> None:
    session = StandIn()
    session.now.counters["camera"] = Counters(entered=9, left=6, dropped=3, late=1)
    session.now = replace(session.now, epoch=4, problems={"camera": "black"})
    with serving(session) as url:
        session.tick()
        status, text = get(f"{url}/metrics")
    assert status == 200
    found = {
        (sample.name, *sample.labels.values()): sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert found["flashlips_items_total", "camera", "dropped"] == 3
    assert found["flashlips_items_total", "pictures", "left"] == 1
    assert found["flashlips_interruptions_total",] == 4
    assert found["flashlips_restarts_total", "lips"] == 0
    assert found["flashlips_gauge", "latency_ms_p50"] == 120
    assert found["flashlips_problem", "camera"] == 1
    assert found["flashlips_clients", "websocket"] == 0


def test_a_client_that_never_reads_loses_frames_and_then_the_connection(monkeypatch) -> None:
    monkeypatch.setattr(client, "STALL_S", 0.5)
    session = StandIn(width=640, height=480)

    async def run(url: str) -> None:
        async with aiohttp.ClientSession() as web:
            deaf = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(
                b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            request = json.dumps({"type": "subscribe", "frames": "raw"}).encode()
            deaf.sendall(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)  # masked with zeros
            other = Socket(await web.ws_connect(f"{url}/ws"))
            await other.ask("subscribe", frames="raw")
            while True:
                header, _ = await other.binary(messages.RAW)
                await other.ask("stats")
                stats = await other.event("stats")
                if stats["clients"]["websocket"] == 1 and header[2] > SECOND_NS:
                    break
            assert stats["dropped"] < 5
            deaf.close()

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("flashlips_edge.serve.client")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with serving(session) as url, live(session):
            asyncio.run(asyncio.wait_for(run(url), DEADLINE_S))
    finally:
        logger.removeHandler(handler)
    assert max(record.dropped for record in records if record.getMessage() == "client went") > 3


def test_fifty_clients_that_vanish_leave_nothing_behind() -> None:
    session, process = StandIn(), psutil.Process()

    async def vanish(url: str, subscribe: bool) -> None:
        async with aiohttp.ClientSession() as web:
            for number in range(50):
                one = Socket(await web.ws_connect(f"{url}/ws"))
                if subscribe:
                    await one.ask("subscribe", frames="jpeg", sound=True)
                    if number % 2:
                        await one.binary(messages.JPEG)
                one.connection._response.connection.transport.abort()  # a reset, no closing handshake

    async def none_left(one: Socket) -> None:
        await one.left("websocket", 1)

    def held() -> tuple[int, ...]:
        gc.collect()
        things = gc.get_objects()
        tasks = sum(isinstance(thing, asyncio.Task) and not thing.done() for thing in things)
        return process.num_fds(), process.num_threads(), tasks, sum(isinstance(thing, Subscriber) for thing in things)

    with serving(session) as url, live(session):
        asyncio.run(vanish(url, subscribe=True))  # the executor's threads have been made
        talk(url, none_left)
        before = held()
        asyncio.run(vanish(url, subscribe=True))
        asyncio.run(vanish(url, subscribe=False))
        talk(url, none_left)
        waited = threading.Event()
        for _ in range(50):  # the sockets of the last ones may be closing
            if all(now <= then for now, then in zip(held(), before, strict=True)):
                break
            waited.wait(0.1)
        else:
            pytest.fail(f"files, threads, tasks, subscribers: {before} before, {held()} after")
    assert not any(thread.name in ("service", "stand-in") for thread in threading.enumerate())


def test_no_more_clients_than_can_be_served(monkeypatch) -> None:
    monkeypatch.setitem(client.LIMITS, "websocket", 2)

    async def conversation(*sockets: Socket) -> None:
        for one in sockets:
            await one.settled()

    with serving(StandIn()) as url:
        talk(url, conversation, clients=2)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            talk(url, conversation, clients=3)


def test_clients_without_the_token_keep_out_nobody_who_has_it(monkeypatch) -> None:
    for kind in client.LIMITS:
        monkeypatch.setitem(client.LIMITS, kind, 2)
    right = {"Authorization": f"Bearer {TOKEN}"}

    async def conversation(one: Socket, other: Socket) -> None:
        async with aiohttp.ClientSession() as web:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await web.ws_connect(f"{url}/ws")
            known = [Socket(await web.ws_connect(f"{url}/ws", headers=right)) for _ in range(2)]
            await known[1].settled()
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await web.ws_connect(f"{url}/ws", headers=right)
            await one.ask("hello", token=TOKEN)
            assert (await one.connection.receive()).type is aiohttp.WSMsgType.CLOSE
            assert one.connection.close_code == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            await known[0].connection.close()
            await known[1].left("websocket", 1)
            await other.ask("hello", token=TOKEN)
            await other.event("hello")
            await known[1].left("websocket", 2)
            await known[1].left("unauthenticated", 0)

    with serving(StandIn(), token=TOKEN) as url:
        talk(url, conversation, clients=2)


COMPLAINS = "import sys; sys.exit(f'cannot phonemize: {sys.stdin.read()}')"


class RepeatingVoice:
    """A program that fails, and repeats in its complaint what it was to say."""

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        yield from Program([sys.executable, "-c", COMPLAINS], "--voice piper:any.onnx").output(text)

    def stop(self) -> None: ...


def test_the_logs_are_json_and_they_and_clients_are_not_told_what_a_voice_says() -> None:
    told: list[str] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)

    async def conversation(one: Socket) -> None:
        await one.ask("hello", token=TOKEN)
        await one.ask("say", text="my secret sentence")
        await one.connection.send_str('{"type": "say", "text": 5, "secret": "my secret sentence"}')
        await one.event("error")
        told.append((await one.event("problem"))["problem"])
        await one.ask("stats")
        told.append((await one.event("stats"))["problems"]["voice"])
        await one.ask("interrupt")
        await one.event("interrupted")

    try:
        with serving(StandIn(), token=TOKEN, voice=RepeatingVoice()) as url:
            get(f"{url}/metrics", headers={"Authorization": "Bearer wrong-horse-battery"})
            talk(url, conversation)
            told.append(json.loads(get(f"{url}/healthz", headers={"Authorization": f"Bearer {TOKEN}"})[1])["problems"]["voice"])
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    ours = [line for line in lines if line["logger"].startswith("flashlips_edge")]
    assert {"serving", "client came", "interrupted", "client went", "request refused", "stopping"} <= {line["event"] for line in ours}
    assert all(line["time"].endswith("+00:00") and line["severity"] in ("info", "warning") for line in ours)
    said = json.dumps(ours)
    assert told == ["the voice failed: exit status 1"] * 3
    assert any(line["event"] == "problem" and line["source"] == "voice" for line in ours), "a voice that fails is told"
    assert "secret" not in said and TOKEN not in said and "horse" not in said


needs_aiortc = pytest.mark.skipif(webrtc.why_none() is not None, reason=f"{webrtc.why_none()}")


def offer_from(peer: Any, url: str, client: str = "") -> Awaitable[None]:
    """Connect a page's side of WebRTC."""
    import aiortc

    async def run() -> None:
        peer.addTransceiver("video", direction="recvonly")
        peer.addTransceiver("audio", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        async with aiohttp.ClientSession() as web:
            body = {"type": "offer", "sdp": peer.localDescription.sdp, "client": client}
            async with web.post(f"{url}/offer", json=body) as response:
                assert response.status == 200, await response.text()
                answer = await response.json()
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer["sdp"], answer["type"]))

    return run()


@needs_aiortc
def test_webrtc_brings_picture_and_sound_on_media_time() -> None:
    import aiortc

    session = StandIn(width=65, height=47)

    async def run(url: str) -> None:
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        tracks = {}
        peer.on("track", lambda track: tracks.update({track.kind: track}))
        await offer_from(peer, url)
        pictures = [await tracks["video"].recv() for _ in range(10)]
        sounds = [await tracks["audio"].recv() for _ in range(30)]
        assert {(picture.width, picture.height) for picture in pictures} == {(65, 47)}
        steps = np.diff([picture.pts for picture in pictures])
        assert set(steps % 3600) == {0}  # 25 frames per second on the 90 kHz clock, be it that some were lost
        levels = [picture.to_ndarray(format="rgb24").mean() for picture in pictures]
        brighter = np.diff(levels) % LEVELS / (steps / 3600)
        assert np.median(brighter) == pytest.approx(STEP, abs=2)  # each picture has the time that belongs to it
        assert set(np.diff([sound.pts for sound in sounds])) == {960}
        assert np.abs(sounds[-1].to_ndarray()).mean() > 0.1 * 32768
        await peer.close()

    async def none_left(one: Socket) -> None:
        await one.left("webrtc", 0)

    with serving(session) as url, live(session):
        asyncio.run(asyncio.wait_for(run(url), DEADLINE_S))
        talk(url, none_left)


@needs_aiortc
def test_a_page_that_vanishes_is_encoded_for_no_more() -> None:
    import aiortc

    async def run(url: str) -> None:
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        tracks = {}
        peer.on("track", lambda track: tracks.update({track.kind: track}))
        async with aiohttp.ClientSession() as web:
            page, other = [Socket(await web.ws_connect(f"{url}/ws")) for _ in range(2)]
            await page.ask("hello")
            await offer_from(peer, url, (await page.event("hello"))["client"])
            await tracks["video"].recv()
            await other.left("webrtc", 1)
            page.connection._response.connection.transport.abort()
            await other.left("webrtc", 0)
        await peer.close()

    session = StandIn()
    with serving(session) as url, live(session):
        asyncio.run(asyncio.wait_for(run(url), DEADLINE_S))


async def stale_offer() -> str:
    """The offer of a page that is gone already."""
    import aiortc

    peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", direction="recvonly")
    peer.addTransceiver("audio", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    await peer.close()
    return peer.localDescription.sdp


@needs_aiortc
def test_peers_that_never_connect_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_S", 0.2)

    async def run(url: str) -> None:
        body = {"type": "offer", "sdp": await stale_offer()}
        async with aiohttp.ClientSession() as web:
            async with web.post(f"{url}/offer", json=body) as response:
                assert response.status == 200
            await Socket(await web.ws_connect(f"{url}/ws")).left("webrtc", 0)

    with serving(StandIn()) as url:
        asyncio.run(asyncio.wait_for(run(url), DEADLINE_S))


@needs_aiortc
def test_no_more_pages_than_can_be_encoded_for(monkeypatch) -> None:
    monkeypatch.setattr(webrtc, "MAX_PEERS", 2)

    async def run(url: str) -> None:
        body = {"type": "offer", "sdp": await stale_offer()}
        async with aiohttp.ClientSession() as web:
            for status in (200, 200, 400):
                async with web.post(f"{url}/offer", json=body) as response:
                    assert response.status == status
                    answer = await response.json()
            assert answer["error"] == "2 pages watch already: close one"

    with serving(StandIn()) as url:
        asyncio.run(asyncio.wait_for(run(url), DEADLINE_S))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"sdp": 5}', b'{"sdp": "v=0\\r\\nm=video"}', b"\xff", pytest.param(b"[" * 100_000, id="deep")]
)
def test_an_offer_that_is_none_is_refused(body: bytes) -> None:
    with serving(StandIn()) as url:
        status, text = get(f"{url}/offer", "POST", data=body)
        assert status == 400 and json.loads(text)["error"]
        assert get(f"{url}/offer", "POST", data=bytes(app.MAX_REQUEST_BYTES + 1))[0] == 413
