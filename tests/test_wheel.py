"""The wheel, installed where there is nothing but its run-time packages, works from any folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter

LIMIT_BYTES = 45_000_000
FRAMES = 12
SAMPLE_RATE_HZ = 16000

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(repo)]
    subprocess.run(command, check=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`run(*arguments)` starts Python where the wheel is installed, in an empty folder; torch cannot be imported there."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(packages), str(wheel)]
    subprocess.run(command, check=True, timeout=120)
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(here))  # after the venv's own: an editable install there is not followed
    (packages / "torch.py").write_text("raise ModuleNotFoundError('torch is not installed here', name='torch')\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()

    def start(*arguments: str) -> subprocess.CompletedProcess:
        command = [str(folder / "venv" / "bin" / "python"), *arguments]
        return subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)

    return start


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path, repo: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    tracked = subprocess.run(["git", "ls-files", "flashlips_edge"], cwd=repo, capture_output=True, text=True, check=False)
    assert {name.split("/")[0] for name in names} == {"flashlips_edge"}
    assert {name for name in tracked.stdout.splitlines() if (repo / name).exists()} <= names
    assert "flashlips_edge/bundles/nano/manifest.json" in names
    assert wheel.stat().st_size < LIMIT_BYTES


def test_it_is_the_wheel_that_runs(run: Run, repo: Path) -> None:
    result = run("-c", "import flashlips_edge; print(flashlips_edge.__file__)")
    assert result.returncode == 0, result.stderr
    assert repo not in Path(result.stdout.strip()).parents


def test_help(run: Run) -> None:
    result = run("-m", "flashlips_edge.run", "--help")
    assert result.returncode == 0, result.stderr
    assert "--avatar" in result.stdout


def test_a_missing_file_is_one_sentence(run: Run) -> None:
    result = run("-m", "flashlips_edge.run", "--avatar", "nobody.mp4", "--audio", "nothing.wav", "--out", "result.mp4")
    assert result.returncode == 2
    assert "nobody.mp4" in result.stderr or "nothing.wav" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_command_that_needs_more_names_the_extra(run: Run) -> None:
    result = run("-m", "flashlips_edge.models")
    said = "flashlips_edge.models: torch is not installed: pip install 'flashlips-edge[build]'\n"
    assert (result.returncode, result.stderr) == (2, said)


def test_a_short_clip(run: Run, repo: Path, tmp_path: Path) -> None:
    avatar = next((repo / "flashlips_edge" / "assets").glob("*.mp4"))
    clip, sound, result_path = tmp_path / "clip.mp4", tmp_path / "sound.wav", tmp_path / "result.mp4"
    with VideoFile(avatar) as video, VideoWriter(clip, video.width, video.height, video.frame_rate) as writer:
        for frame in islice(video, FRAMES):
            writer.write(frame)
    soundfile.write(sound, 0.1 * np.sin(0.1 * np.arange(SAMPLE_RATE_HZ)), SAMPLE_RATE_HZ)
    result = run("-m", "flashlips_edge.run", "--avatar", str(clip), "--audio", str(sound), "--out", str(result_path))
    assert result.returncode == 0, result.stderr
    with av.open(str(result_path)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
        assert (container.streams.video[0].width, container.streams.video[0].height) == (video.width, video.height)
        assert sum(1 for _ in container.decode(video=0)) >= FRAMES
