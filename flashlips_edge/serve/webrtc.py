"""The live picture and sound for a browser, over WebRTC: one peer connection for each page."""

from __future__ import annotations

import asyncio
import logging
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.serve.feed import Subscriber
from flashlips_edge.serve.outbox import ClosedError, Outbox
from flashlips_edge.serve.service import Service

try:
    import aiortc
    from aiortc.codecs import vpx

    vpx.DEFAULT_BITRATE = vpx.MAX_BITRATE = 4_000_000  # with its own 0.5 and 1.5 Mbit/s a face is blurred, and it has no setting for them
except ImportError:
    if not TYPE_CHECKING:
        aiortc = None

MAX_PEERS = 8  # each has an encoder of its own
CONNECT_S = 15.0  # a page that does not connect for so long after its offer is forgotten
CLOSE_S = 2.0
VIDEO_CLOCK_HZ = 90_000
SAMPLE_RATE_HZ = 48_000
PIECE = SAMPLE_RATE_HZ // 50  # samples of one Opus packet

log = logging.getLogger(__name__)


def why_none() -> str | None:
    """One sentence: what is missing for WebRTC; None if nothing is."""
    if aiortc is None:
        return "no WebRTC: aiortc is not installed (pip install 'flashlips-edge[serve]', Python 3.11 or later)"
    return None


class OfferError(ValueError):
    """An offer that cannot be answered, in one sentence."""


class Peers:
    """The peer connections of one service. Lives in its event loop; `close` ends them all."""

    def __init__(self, service: Service):
        self._service = service
        self._peers: dict[aiortc.RTCPeerConnection, tuple[str, list[Subscriber]]] = {}

    async def answer(self, sdp: str, client: str = "") -> str:
        """The SDP that answers a page's offer of two receivers, video and audio. OfferError if it is none, or too many watch.

        `client` is the page's WebSocket: `end` with its name ends the peer too.
        """
        if (missing := why_none()) is not None:
            raise OfferError(missing)
        if len(self._peers) >= MAX_PEERS:
            raise OfferError(f"{MAX_PEERS} pages watch already: close one")
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        loop = asyncio.get_running_loop()
        face, voice = Outbox(loop, {"frames": 1}), Outbox(loop, {"sound": 50})
        subscribers = [Subscriber(face, frames="frame"), Subscriber(voice, sound="samples")]
        self._peers[peer] = (client, subscribers)
        self._service.clients["webrtc"] = len(self._peers)

        @peer.on("connectionstatechange")
        async def changed() -> None:
            log.info("peer", extra={"kind": "webrtc", "state": peer.connectionState})
            if peer.connectionState in ("failed", "closed"):
                await self._forget(peer)

        try:
            peer.addTrack(FaceTrack(face))
            peer.addTrack(VoiceTrack(voice))
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "offer"))
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # whatever its parser trips over
            await self._forget(peer)
            raise OfferError(f"sdp is no offer to receive video and audio: {type(error).__name__}") from error
        for subscriber in subscribers:
            self._service.feed.add(subscriber)
        loop.call_later(CONNECT_S, self._check, peer)
        return peer.localDescription.sdp

    async def end(self, client: str) -> None:
        """The page is gone: WebRTC alone would notice after half a minute, and encode for nobody until then."""
        for peer, (owner, _) in list(self._peers.items()):
            if owner == client:
                await self._forget(peer)

    async def close(self) -> None:
        if closing := [asyncio.ensure_future(self._forget(peer)) for peer in list(self._peers)]:
            await asyncio.wait(closing, timeout=CLOSE_S)

    def _check(self, peer: aiortc.RTCPeerConnection) -> None:
        if peer in self._peers and peer.connectionState != "connected":
            self._forgetting = asyncio.ensure_future(self._forget(peer))

    async def _forget(self, peer: aiortc.RTCPeerConnection) -> None:
        _, subscribers = self._peers.pop(peer, ("", []))
        self._service.clients["webrtc"] = len(self._peers)
        for subscriber in subscribers:
            self._service.feed.remove(subscriber)
            subscriber.outbox.close()
        await peer.close()


class FaceTrack(aiortc.MediaStreamTrack if aiortc is not None else object):  # type: ignore[misc]
    """The frames of an outbox, with media time as their RTP time."""

    kind = "video"

    def __init__(self, outbox: Outbox):
        super().__init__()
        self._outbox = outbox

    async def recv(self) -> av.VideoFrame:
        try:
            frame: Frame = await self._outbox.get()
        except ClosedError:
            self.stop()
            raise aiortc.mediastreams.MediaStreamError from None
        picture = colour.empty_yuv(frame.width, frame.height, frame.tags)  # the encoder writes on it: a copy for each page
        for to, plane in zip(colour.planes(picture), colour.planes(frame.yuv), strict=True):
            to[:] = plane
        picture.pts, picture.time_base = frame.pts_ns * VIDEO_CLOCK_HZ // SECOND_NS, Fraction(1, VIDEO_CLOCK_HZ)
        return picture


class VoiceTrack(aiortc.MediaStreamTrack if aiortc is not None else object):  # type: ignore[misc]
    """The sound of an outbox in pieces of 20 ms. What a slow page lost becomes silence, so that its sound stays on media time."""

    kind = "audio"

    def __init__(self, outbox: Outbox):
        super().__init__()
        self._outbox = outbox
        self._waiting = np.zeros(0, np.float32)
        self._at = -1  # media time of the first waiting sample, in samples; -1 before there is any

    async def recv(self) -> av.AudioFrame:
        while len(self._waiting) < PIECE:
            try:
                samples, pts_ns = await self._outbox.get()
            except ClosedError:
                self.stop()
                raise aiortc.mediastreams.MediaStreamError from None
            start = pts_ns * SAMPLE_RATE_HZ // SECOND_NS
            if self._at < 0:
                self._at = start
            lost = max(0, start - self._at - len(self._waiting))
            self._waiting = np.concatenate([self._waiting, np.zeros(lost if lost > PIECE else 0, np.float32), samples])
        piece, self._waiting = self._waiting[:PIECE], self._waiting[PIECE:]
        block = av.AudioFrame.from_ndarray(np.rint(np.clip(piece, -1, 1) * 32767).astype(np.int16)[None], "s16", "mono")
        block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, self._at, Fraction(1, SAMPLE_RATE_HZ)
        self._at += PIECE
        return block
