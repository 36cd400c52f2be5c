"""The service's command line: python -m flashlips_edge.serve --help."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.serve.logs import log_to_stderr
from flashlips_edge.serve.systemd import notify

PROGRAM = "flashlips_edge.serve"
WRONG_USE = 2


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(
        prog=f"python -m {PROGRAM}",
        description="Serve a live face: web page, WebSocket, WebRTC, /healthz and /metrics. docs/serve.md has the messages.",
        epilog="It ends with Ctrl-C or SIGTERM, exit status 0. Wrong use: one sentence and exit status 2.",
        allow_abbrev=False,
    )
    face = result.add_argument_group("the face that speaks (one of)")
    face.add_argument("--avatar", metavar="VIDEO|FOLDER", help="a recorded face, a prepared or a personal avatar")
    face.add_argument("--camera", metavar="INDEX|DEVICE|URL", help="a live face: 0, /dev/video0, rtsp:// or http://")
    where = result.add_argument_group("where it is served")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at; any but loopback needs a token (default: 127.0.0.1)")
    where.add_argument("--port", type=int, default=8765, metavar="N", help="0 takes a free one (default: 8765)")
    where.add_argument(
        "--token", metavar="T", help="what a client must know; other users of this machine may see it in the list of processes"
    )
    where.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds it")
    how = result.add_argument_group("how")
    how.add_argument("--bundle", metavar="NAME|FOLDER", help="the networks (default: the personal avatar's own, else nano)")
    how.add_argument(
        "--require-signature", type=Path, metavar="KEY.pub", help="open only networks signed with this key (flashlips_edge.signature)"
    )
    how.add_argument("--idle", metavar="VIDEO|FOLDER", help="shown while the camera is away")
    how.add_argument("--voice", metavar="NAME:VOICE", help="speaks the texts that clients send, such as espeak:en")
    how.add_argument("--loudspeaker", action="store_true", help="the sound comes from this machine too, and its loudspeaker is the clock")
    how.add_argument("--detector", type=Path, metavar="FILE", help="a YuNet face detector (.onnx); else OpenCV's Haar cascade")
    how.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the networks (default: 2)")
    return result


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together or are out of range."""
    if (options.avatar is None) == (options.camera is None):
        raise UserError("give either --avatar VIDEO|FOLDER or --camera INDEX|DEVICE|URL" + (", not both" if options.avatar else ""))
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port {options.port} is out of range: 0 to 65535")
    if not 1 <= options.threads <= 256:
        raise UserError(f"--threads {options.threads} is out of range: 1 to 256")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 after Ctrl-C or SIGTERM, 2 for wrong use."""
    try:
        options = parser().parse_args(arguments)
        check(options)
        run(options)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        return 0
    return 0


def run(options: argparse.Namespace) -> None:
    """Open the session, serve it until a signal comes, close it."""
    try:  # here, as they take a second or more, in which a signal may come
        import asyncio

        from flashlips_edge.pump.clock import MonotonicClock
        from flashlips_edge.serve.access import check_host, read_token
        from flashlips_edge.serve.server import serve
        from flashlips_edge.session import LipSync
        from flashlips_edge.tts.voice import open_voice
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'flashlips-edge[serve]'") from None
    token = read_token(options.token, options.token_file)
    check_host(options.host, token)
    on_signal(signal.default_int_handler)  # what is open by then is closed
    log_to_stderr()
    with ExitStack() as stack:
        voice = open_voice(options.voice) if options.voice is not None else None
        session = stack.enter_context(
            LipSync.open(
                options.bundle,
                avatar=options.avatar,
                camera=options.camera,
                idle=options.idle,
                loudspeaker=options.loudspeaker,
                require_signature=options.require_signature,
                threads=options.threads,
                detector=options.detector,
            )
        )

        async def until_signalled() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            on_signal(lambda *_: loop.call_soon_threadsafe(stop.set))  # the loop's own handlers would end with it, before the session
            try:
                await serve(session, MonotonicClock(), voice, token, options.host, options.port, stop, ready)
            finally:
                on_signal(signal.SIG_IGN)  # it closes already

        asyncio.run(until_signalled())
        notify("STOPPING=1")


def on_signal(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """What Ctrl-C and SIGTERM do from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def ready(address: str) -> None:
    """Tell the user and the service manager that clients may come."""
    print(address, flush=True)
    notify("READY=1")


if __name__ == "__main__":
    on_signal(lambda *_: os._exit(0))  # nothing is open yet
    status = main()
    on_signal(signal.SIG_IGN)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)  # all is closed; a thread that was left behind in a network's code would crash the interpreter's own end
