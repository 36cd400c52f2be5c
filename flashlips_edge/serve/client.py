"""One WebSocket client: its messages are followed in their order, and what it subscribed to is sent."""

from __future__ import annotations

import asyncio
import logging
import secrets
from fractions import Fraction
from typing import Any

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from flashlips_edge.errors import UserError
from flashlips_edge.serve import messages
from flashlips_edge.serve.access import Access
from flashlips_edge.serve.feed import Subscriber
from flashlips_edge.serve.messages import MessageError
from flashlips_edge.serve.outbox import ClosedError, Outbox
from flashlips_edge.serve.service import Service
from flashlips_edge.serve.webrtc import why_none

LANES = {"events": 100, "sound": 50, "frames": 1}
LIMITS = {"websocket": 64, "unauthenticated": 64}  # connected at once; whoever lacks the token keeps out nobody who has it
STALL_S = 10.0  # a client that takes nothing for so long is disconnected
HELLO_S = 5.0  # for the token
HEARTBEAT_S = 20.0  # a client that answers no ping is gone
CLOSE_S = 2.0

log = logging.getLogger(__name__)


def full(service: Service, kind: str) -> str | None:
    """One sentence while no more clients of this kind may come."""
    return None if service.clients[kind] < LIMITS[kind] else f"{LIMITS[kind]} {kind} clients are connected already"


class Client:
    """`run` serves it until it goes, is too slow, or the service closes.

    kind    as which it is counted: "unauthenticated" until it gives the token where one is wanted, then "websocket"
    """

    def __init__(self, service: Service, access: Access, request: web.Request):
        self.name = secrets.token_hex(8)
        self._service, self._access, self._request = service, access, request
        self.kind = "websocket" if access.bears(request) else "unauthenticated"
        self._socket = web.WebSocketResponse(
            timeout=CLOSE_S,
            heartbeat=HEARTBEAT_S,
            max_msg_size=messages.MAX_MESSAGE_BYTES + 1,  # aiohttp refuses what has this size too
            compress=False,
        )
        self._outbox = Outbox(asyncio.get_running_loop(), LANES)
        self._subscriber = Subscriber(self._outbox)
        self._audio: dict[str, Any] = messages.read('{"type": "audio"}')[1]

    async def run(self) -> web.WebSocketResponse:
        self._service.clients[self.kind] += 1
        try:
            await self._socket.prepare(self._request)
            if self.kind == "websocket" or await self._introduce():
                await self._converse()
        finally:
            self._service.clients[self.kind] -= 1
        return self._socket

    async def _converse(self) -> None:
        log.info("client came", extra={"kind": "websocket", "clients": self._service.clients["websocket"]})
        self._service.listen(self._outbox)
        self._service.feed.add(self._subscriber)
        writing = asyncio.create_task(self._write())
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    self._follow(message.data)
                elif message.type is WSMsgType.BINARY:
                    await self._hear(message.data)
        finally:
            self._service.feed.remove(self._subscriber)
            self._service.leave(self._outbox)
            self._outbox.close()
            await asyncio.gather(writing, return_exceptions=True)
            log.info("client went", extra={"kind": "websocket", "code": self._socket.close_code, "dropped": self._outbox.dropped})

    async def _introduce(self) -> bool:
        """Whether the first message is a hello with the right token, and there is room; otherwise the connection is closed."""
        try:
            message = await asyncio.wait_for(self._socket.receive(), HELLO_S)  # receive's own limit begins anew with each ping
            kind, values = messages.read(message.data) if message.type is WSMsgType.TEXT else ("", {})
        except (asyncio.TimeoutError, MessageError):
            kind, values = "", {}
        if kind != "hello" or not self._access.knows(values["token"]):
            log.warning("client refused", extra={"kind": "websocket", "reason": "token"})
            await self._socket.close(
                code=WSCloseCode.POLICY_VIOLATION, message=b"the first message must be a hello with the service's token"
            )
            return False
        if (refusal := full(self._service, "websocket")) is not None:
            await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=refusal.encode())
            return False
        self._service.clients[self.kind] -= 1
        self.kind = "websocket"
        self._service.clients[self.kind] += 1
        self._outbox.put("events", self._hello())
        return True

    def _follow(self, text: str) -> None:
        try:
            kind, values = messages.read(text)
            getattr(self, f"_on_{kind}")(**values)
        except MessageError as error:
            self._refuse(error.field, str(error))
        except UserError as error:  # the session's own words, on a clip for example
            self._refuse(kind, str(error))

    def _on_hello(self, token: str | None) -> None:
        self._outbox.put("events", self._hello())

    def _on_audio(self, **values: Any) -> None:
        self._audio = values

    def _on_say_silence(self) -> None:
        self._service.session.say_silence()

    def _on_interrupt(self) -> None:
        self._service.interrupt()

    def _on_play(self, clip: str) -> None:
        self._service.session.play(clip)

    def _on_say(self, text: str) -> None:
        if (refusal := self._service.say(text)) is not None:
            raise MessageError("text", refusal)

    def _on_subscribe(self, frames: str, max_rate: float, sound: bool) -> None:
        self._subscriber.frames, self._subscriber.max_rate = frames, max_rate
        self._subscriber.sound = "pcm" if sound else "none"

    def _on_stats(self) -> None:
        self._outbox.put("events", self._service.stats_event(self._outbox.dropped))

    async def _hear(self, data: bytes) -> None:
        channels, kind = self._audio["channels"], messages.PCM_FORMATS[self._audio["format"]]
        step = channels * kind.itemsize
        if not data or len(data) % step:
            need = f"a multiple of {step} for {channels} channels of {self._audio['format']}"
            self._refuse("binary", f"the sound has {len(data)} bytes: it must be {need}, and not empty")
            return
        pcm = np.frombuffer(data, kind).astype(kind.newbyteorder("=")).reshape(-1, channels)
        try:
            await asyncio.to_thread(self._service.session.push_audio, pcm, self._audio["rate"])
        except UserError as error:
            self._refuse("binary", str(error))

    def _refuse(self, field: str, sentence: str) -> None:
        self._outbox.put("events", messages.event("error", field=field, problem=sentence))

    def _hello(self) -> str:
        session = self._service.session
        return messages.event(
            "hello",
            version=messages.VERSION,
            client=self.name,
            width=session.width,
            height=session.height,
            frame_rate=float(Fraction(session.frame_rate)),
            sample_rate=session.sample_rate_hz,
            clips=list(session.clips),
            voice=self._service.has_voice,
            webrtc=why_none() is None,
            synthetic=True,
        )

    async def _write(self) -> None:
        try:
            while True:
                item = await self._outbox.get()
                sending = self._socket.send_str(item) if isinstance(item, str) else self._socket.send_bytes(item)
                await asyncio.wait_for(sending, STALL_S)
        except ClosedError:
            await self._socket.close(code=WSCloseCode.GOING_AWAY)
        except (asyncio.TimeoutError, ConnectionError):
            if self._request.transport is not None:
                self._request.transport.abort()  # a closing handshake would wait for a client that does not read
