"""A session served at an address, until somebody says stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from flashlips_edge.errors import UserError
from flashlips_edge.pump.clock import Clock
from flashlips_edge.serve.access import Access
from flashlips_edge.serve.app import make_app
from flashlips_edge.serve.service import Service
from flashlips_edge.session import LipSync
from flashlips_edge.tts.voice import Voice

CLOSE_S = 3.0  # for answers that are on their way

log = logging.getLogger(__name__)


async def serve(
    session: LipSync,
    clock: Clock,
    voice: Voice | None,
    token: str | None,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Serve an open session until `stop` is set; `ready` gets the address once clients can come.

    The session and the voice stay open: they belong to the caller. UserError if the port cannot be had.
    """
    service = Service(session, clock, voice)
    service.start()
    runner = web.AppRunner(make_app(service, Access(token)), access_log=None, shutdown_timeout=CLOSE_S)
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: cannot listen there: {error.strerror or error}") from None
        address, number = runner.addresses[0][:2]
        log.info("serving", extra={"host": address, "port": number})
        ready(f"http://{f'[{address}]' if ':' in address else address}:{number}/")
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()
        await service.close()
