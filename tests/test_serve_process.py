"""The service as a process: its command line, its signals, and what it tells a service manager."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faces import write_faces
from serving import DEADLINE_S, StandIn, serving
from tiny_bundle import tiny_bundle

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing: pip install -e '.[serve]'")

from flashlips_edge.pump.clock import SECOND_NS, ManualClock  # noqa: E402
from flashlips_edge.serve import __main__ as command  # noqa: E402

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder with bundle/ and face.mp4."""
    folder = tmp_path_factory.mktemp("media")
    tiny_bundle(folder / "bundle")
    write_faces(folder / "face.mp4", 10)
    return folder


@pytest.fixture
def manager(tmp_path, monkeypatch) -> Iterator[socket.socket]:
    """A service manager's socket, named in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


@contextmanager
def started(media: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen]:
    """The command line in a process of its own."""
    fixed = ["--avatar", str(media / "face.mp4"), "--bundle", str(media / "bundle"), "--threads", "1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flashlips_edge.serve", *fixed, *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_closes_everything_whoever_is_connected(media, manager, number) -> None:
    async def connect(url: str, process: subprocess.Popen) -> None:
        async with aiohttp.ClientSession() as web:
            one = await web.ws_connect(f"{url}ws")
            await one.send_str('{"type": "subscribe", "frames": "raw", "sound": true}')
            await one.receive()
            deaf = await web.ws_connect(f"{url}ws")
            await deaf.send_str('{"type": "subscribe", "frames": "raw"}')
            deaf._response.connection.transport.pause_reading()
            assert manager.recv(100) == b"READY=1"
            process.send_signal(number)
            while (message := await one.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE and one.close_code == aiohttp.WSCloseCode.GOING_AWAY

    with started(media) as process:
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}healthz", timeout=DEADLINE_S) as answer:
            assert json.load(answer)["status"] == "ok"
        asyncio.run(asyncio.wait_for(connect(url, process), DEADLINE_S))
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
    assert manager.recv(100) == b"STOPPING=1"
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines if line["event"] in ("serving", "stopping")] == ["serving", "stopping"]


@pytest.mark.parametrize(("number", "module"), [(signal.SIGINT, "numpy"), (signal.SIGTERM, "aiohttp")], ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_it_starts_ends_it(media, number, module) -> None:
    with started(media, PYTHONPROFILEIMPORTTIME="1") as process:
        while module not in process.stderr.readline():  # its first part has been imported
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0 and "Traceback" not in err


def test_further_signals_change_nothing_while_it_closes(media) -> None:
    with started(media) as process:
        process.stdout.readline()
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0 and "Traceback" not in err


def test_a_token_from_a_file_opens_it_to_other_machines(media, tmp_path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with started(media, "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")) as process:
        port = process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE_S)
        process.terminate()
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0 and TOKEN not in err


def test_the_watchdog_is_fed_only_while_frames_flow(manager, monkeypatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    clock, session = ManualClock(), StandIn()
    with serving(session, clock=clock) as url:
        assert manager.recv(100) == b"WATCHDOG=1"
        clock.advance(15 * SECOND_NS)  # no frame has come
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/healthz", timeout=DEADLINE_S)
        manager.settimeout(0.5)  # several looks
        with pytest.raises(TimeoutError):
            manager.recv(100)
        session.tick()
        manager.settimeout(DEADLINE_S)
        assert manager.recv(100) == b"WATCHDOG=1"


WRONG = {
    "no face": ("", "give either --avatar VIDEO|FOLDER or --camera INDEX|DEVICE|URL"),
    "two faces": ("--avatar a.mp4 --camera 0", "not both"),
    "unknown option": ("--avatar a.mp4 --public", "--public"),
    "port": ("--avatar a.mp4 --port 70000", "--port 70000 is out of range: 0 to 65535"),
    "threads": ("--avatar a.mp4 --threads 0", "--threads 0 is out of range: 1 to 256"),
    "host without a token": ("--avatar a.mp4 --host 0.0.0.0", "--host 0.0.0.0 can be reached from other machines: give --token"),
    "name without a token": ("--avatar a.mp4 --host kiosk.example", "--host kiosk.example can be reached from other machines"),
    "short token": ("--avatar a.mp4 --token secret", "--token: the token has 6 characters: at least 16 are needed"),
    "two tokens": (f"--avatar a.mp4 --token {TOKEN} --token-file t", "give either --token or --token-file, not both"),
    "no token file": ("--avatar a.mp4 --token-file none", "--token-file none: it cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_one_sentence(what, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    words, named = WRONG[what]
    assert command.main(words.split()) == command.WRONG_USE
    said = capsys.readouterr().err
    assert said.startswith("flashlips_edge.serve: ") and named in said
    assert said.count("\n") == 1 and TOKEN not in said


LATER = {
    "missing avatar": (["--avatar", "none.mp4"], "none.mp4"),
    "port in use": ([], "cannot listen there: "),
    "unknown voice": (["--voice", "parrot:grey"], "--voice parrot:grey"),
}


@pytest.mark.parametrize("what", LATER)
def test_wrong_use_that_only_opening_shows_is_one_sentence(what, media) -> None:
    words, named = LATER[what]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = ["--port", str(taken.getsockname()[1])] if what == "port in use" else []
        with started(media, *words, *more) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2 and out == ""
    assert "Traceback" not in err and named in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("flashlips_edge.serve: ")


def test_without_its_packages_it_names_them(capsys, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("aiohttp", "flashlips_edge.serve."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert command.main(["--avatar", "a.mp4"]) == command.WRONG_USE
    assert "aiohttp is not installed: pip install 'flashlips-edge[serve]'" in capsys.readouterr().err
