"""The HTTP side: pages, WebSocket, WebRTC's offer, health and metrics, behind one door."""

from __future__ import annotations

import json
import logging
from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from flashlips_edge.serve.access import Access
from flashlips_edge.serve.client import Client, full
from flashlips_edge.serve.health import SessionCollector, metrics
from flashlips_edge.serve.service import Service
from flashlips_edge.serve.webrtc import OfferError, Peers

MAX_REQUEST_BYTES = 1 << 18
PAGES = ("/", "/kiosk")  # hold no secret, so they need no token; their script reads it from the address' fragment
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Permissions-Policy": "microphone=(self), camera=()",
}

log = logging.getLogger(__name__)


def make_app(service: Service, access: Access) -> web.Application:
    """The application of one service. Its cleanup closes all peers and clients."""
    app = web.Application(middlewares=[_door(access)], client_max_size=MAX_REQUEST_BYTES)
    peers = Peers(service)
    collector = SessionCollector(service.session, lambda: service.clients)
    page = files("flashlips_edge.serve").joinpath("page.html").read_text(encoding="utf-8")

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def connect(request: web.Request) -> web.StreamResponse:
        client = Client(service, access, request)
        if (refusal := full(service, client.kind)) is not None:
            return _sentence(503, refusal)
        try:
            return await client.run()
        finally:
            await peers.end(client.name)

    async def offer(request: web.Request) -> web.Response:
        try:
            body = await request.json()
            return web.json_response({"type": "answer", "sdp": await peers.answer(str(body["sdp"]), str(body.get("client", "")))})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return _sentence(400, str(error) if isinstance(error, OfferError) else 'the body must be JSON: {"type": "offer", "sdp": "..."}')

    async def healthz(_: web.Request) -> web.Response:
        faults = service.health.faults()
        body = {"status": "failing" if faults else "ok", "faults": faults, "problems": service.problems(service.session.stats())}
        return web.json_response(body, status=503 if faults else 200)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(collector), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    for path in PAGES:
        app.router.add_get(path, show)
    app.router.add_get("/ws", connect)
    app.router.add_post("/offer", offer)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", show_metrics)

    async def stop(_: web.Application) -> None:
        await peers.close()
        service.feed.close()

    app.on_shutdown.append(stop)
    return app


def _door(access: Access) -> Middleware:
    """Refuses foreign pages and whoever lacks the token; a WebSocket may bring its token in its first message."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (refusal := access.refusal(request)) is not None:
            log.warning("request refused", extra={"path": request.path, "reason": "origin or host"})
            return _sentence(403, refusal)
        if request.path not in (*PAGES, "/ws") and not access.bears(request):
            log.warning("request refused", extra={"path": request.path, "reason": "token"})
            return _sentence(401, "give the service's token: Authorization: Bearer ...")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return door


def _sentence(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": sentence}), content_type="application/json")
