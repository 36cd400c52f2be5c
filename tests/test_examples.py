"""The examples do what their first lines say."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faces import HEIGHT, WIDTH, mouth_level, speech, write_faces, write_speech
from tiny_bundle import tiny_bundle

from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.serve.__main__ import check
from flashlips_edge.serve.__main__ import parser as serve_parser
from flashlips_edge.talking.avatar_folder import write_record


def test_embedding_takes_25_lines_and_makes_a_face_speak_a_file(repo: Path, tmp_path: Path) -> None:
    example = repo / "examples" / "embed.py"
    assert len(example.read_text().splitlines()) <= 25
    face, sound = tmp_path / "face", write_speech(tmp_path / "speech.wav", 1.0)
    tiny_bundle(face / "bundle")
    write_record(face, write_faces(face / "video.mp4", 10).name, "Ada, for this test", {})
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, str(example), str(face), str(sound), str(tmp_path / "result.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=repo)
    assert done.returncode == 0, done.stderr
    heard = read_sound(tmp_path / "result.mp4").samples
    assert np.sqrt((heard**2).mean()) > 0.01
    with VideoFile(tmp_path / "result.mp4") as video:
        assert (video.width, video.height) == (WIDTH, HEIGHT)
        assert video.duration_ns > 1_000_000_000


@pytest.mark.parametrize(("words", "says"), [(["face.mp4"], "1 arguments are given"), (["face.mp4", "none.wav", "result.mp4"], "none.wav")])
def test_wrong_use_of_embedding_is_one_sentence(repo: Path, words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, str(repo / "examples" / "embed.py"), *words], capture_output=True, text=True, timeout=60, cwd=repo
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("embed: ") and says in done.stderr and done.stderr.count("\n") == 1


class StandIn:
    """What of ROS 2 the node uses: a node that keeps what it is given, and messages as bags of fields."""

    def __init__(self, parameters: dict[str, Any]):
        self.published: list[Any] = []
        self.enough, self.errors = threading.Event(), []
        self.subscriptions: dict[str, Callable[[Any], None]] = {}
        self.services: dict[str, Callable[[Any, Any], Any]] = {}
        standin = self

        class Node:
            def __init__(self, name: str) -> None:
                standin.name, standin.node = name, self

            def declare_parameter(self, name: str, default: Any) -> Any:
                return SimpleNamespace(value=parameters.get(name, default))

            def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
                assert (kind.__name__, topic) == ("Image", "image")
                return SimpleNamespace(publish=standin.publish)

            def create_subscription(self, kind: type, topic: str, callback: Any, depth: int) -> None:
                standin.subscriptions[topic] = callback

            def create_service(self, kind: type, name: str, callback: Any) -> None:
                standin.services[name] = callback

            def get_clock(self) -> Any:
                return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: "now"))

            def get_logger(self) -> Any:
                return SimpleNamespace(error=standin.errors.append)

            def destroy_node(self) -> None:
                standin.node = None

        def message(name: str) -> type:
            def init(self: Any, **fields: Any) -> None:
                self.__dict__.update(header=SimpleNamespace(), **fields)

            return type(name, (), {"__init__": init})

        trigger = type("Trigger", (), {"Request": message("Request"), "Response": message("Response")})
        self.modules = {
            "rclpy": {"init": lambda: None, "try_shutdown": lambda: None, "spin": lambda node: self.work()},
            "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
            "rclpy.node": {"Node": Node},
            "rclpy.qos": {"qos_profile_sensor_data": "sensor data"},
            "sensor_msgs.msg": {"Image": message("Image")},
            "std_msgs.msg": {"Int16MultiArray": message("Int16MultiArray"), "String": message("String")},
            "std_srvs.srv": {"Trigger": trigger},
        }
        self.work: Callable[[], None] = lambda: None

    def publish(self, image: Any) -> None:
        self.published.append(image)
        if len(self.published) >= 40:
            self.enough.set()

    def call(self, service: str) -> bool:
        response = self.services[service](SimpleNamespace(), SimpleNamespace(success=False))
        return response.success


@pytest.fixture
def ros(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[StandIn, ModuleType]]]:
    """Gives the stand-in and the example, which imports it as ROS 2, for these parameters."""

    def load(**parameters: Any) -> tuple[StandIn, ModuleType]:
        standin = StandIn({"bundle": str(tiny_bundle(tmp_path / "bundle").folder), **parameters})
        for name, contents in standin.modules.items():
            module = ModuleType(name)
            module.__dict__.update(contents)
            monkeypatch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("ros2_node", repo / "examples" / "ros2_node.py")
        assert spec is not None and spec.loader is not None
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        return standin, example

    return load


def test_the_ros_node_publishes_a_face_that_speaks_what_it_hears(ros, tmp_path: Path) -> None:
    standin, example = ros(avatar=str(write_faces(tmp_path / "face.mp4", 10)))

    def work() -> None:
        samples = (speech(1.5) * 32767).astype(np.int16)
        for piece in np.split(samples, 10):
            standin.subscriptions["audio"](SimpleNamespace(data=piece.tolist()))
        assert standin.call("~/say_silence")
        assert standin.enough.wait(30)
        assert standin.call("~/interrupt")
        standin.subscriptions["say"](SimpleNamespace(data="hello"))
        raise KeyboardInterrupt

    standin.work = work
    assert example.main() == 0
    assert standin.node is None
    for image in standin.published:
        assert (image.width, image.height, image.step, image.encoding) == (WIDTH, HEIGHT, 3 * WIDTH, "rgb8")
        assert image.data.typecode == "B" and len(image.data) == HEIGHT * image.step
        assert image.header.stamp == "now"
    levels = [mouth_level(np.frombuffer(image.data, np.uint8).reshape(HEIGHT, WIDTH, 3)) for image in standin.published]
    assert max(levels) > min(levels) + 20
    assert standin.errors == ["say: give the parameter voice, such as espeak:en-gb"]


def test_the_ros_node_says_a_text(ros, tmp_path: Path, espeak: str) -> None:
    standin, example = ros(avatar=str(write_faces(tmp_path / "face.mp4", 10)), voice="espeak:en")

    def work() -> None:
        standin.subscriptions["say"](SimpleNamespace(data="Hello, hello, hello, hello."))
        assert standin.enough.wait(30)

    standin.work = work
    assert example.main() == 0
    levels = [mouth_level(np.frombuffer(image.data, np.uint8).reshape(HEIGHT, WIDTH, 3)) for image in standin.published]
    assert max(levels) > min(levels) + 20
    assert not standin.errors


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "give either an avatar or a camera"),
        ({"avatar": "none.mp4"}, "none.mp4"),
        ({"voice": "festival:x"}, "parameter voice festival:x"),
    ],
)
def test_wrong_parameters_of_the_ros_node_end_in_one_sentence(ros, capsys, parameters: dict[str, str], says: str) -> None:
    _, example = ros(**parameters)
    assert example.main() == 2
    refusal = capsys.readouterr().err
    assert says in refusal and refusal.count("\n") == 1


def test_the_ros_node_may_be_interrupted_while_it_opens(ros, monkeypatch: pytest.MonkeyPatch) -> None:
    _, example = ros()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "LipSync", SimpleNamespace(open=interrupted))
    assert example.main() == 0


def test_the_systemd_recipe_puts_the_avatar_where_the_unit_opens_it(repo: Path, tmp_path: Path) -> None:
    text = (repo / "examples" / "systemd" / "flashlips-edge.service").read_text()
    (tmp_path / "avatars" / "lobby").mkdir(parents=True)
    (tmp_path / "var" / "lib").mkdir(parents=True)
    commands = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "/var/lib" in line]
    subprocess.run(["sh", "-ec", "\n".join(commands).replace("/var/lib", "var/lib")], cwd=tmp_path, check=True)
    opened = re.findall(r"--avatar /(\S+)", text)[0]
    assert (tmp_path / opened).is_dir()


def test_the_systemd_unit_runs_the_service_as_it_is(repo: Path, tmp_path: Path) -> None:
    text = (repo / "examples" / "systemd" / "flashlips-edge.service").read_text()
    command = re.findall(r"^ExecStart=(.+)$", text, re.M)
    assert len(command) == 1
    program, dash_m, module, *options = command[0].split()
    assert (dash_m, module) == ("-m", "flashlips_edge.serve")
    check(serve_parser().parse_args(options))
    assert "Type=notify" in text and "WatchdogSec=" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed, so nobody can check the unit file: sudo apt-get install systemd")
    unit = tmp_path / "flashlips-edge.service"
    unit.write_text(text.replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
