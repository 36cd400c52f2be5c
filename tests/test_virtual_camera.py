"""The virtual camera, through a stand-in for pyvirtualcam, and what is said where there is none."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from clips import corners, read_corners

from flashlips_edge.errors import UserError
from flashlips_edge.media import virtual_camera
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.virtual_camera import VirtualCamera

DEVICE = "/dev/video7"


class Loopback:
    """As pyvirtualcam's Camera, on one device that one program may have."""

    taken = False
    gone = False

    def __init__(self, width: int, height: int, fps: float, device: str | None = None):
        if Loopback.taken or device not in (None, DEVICE):
            raise RuntimeError("'v4l2loopback' backend: device\nnot found")
        self.size, self.fps, self.device = (width, height), fps, DEVICE
        self.seen: list[np.ndarray] = []
        Loopback.taken = True

    def send(self, image: np.ndarray) -> None:
        assert image.dtype == np.uint8 and image.shape == (self.size[1], self.size[0], 3)
        if Loopback.gone:
            raise RuntimeError("error writing frame:\nNo such device")
        self.seen.append(image)

    def close(self) -> None:
        Loopback.taken = False


@pytest.fixture(autouse=True)
def loopback(monkeypatch) -> None:
    monkeypatch.setattr(Loopback, "taken", False)
    monkeypatch.setattr(Loopback, "gone", False)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Loopback))


def test_others_see_the_frames_at_one_size():
    assert virtual_camera.why_none() is None
    with VirtualCamera(64, 48, Fraction(30000, 1001)) as camera:
        assert (camera.device, camera._camera.fps) == (DEVICE, pytest.approx(29.97, abs=0.001))
        camera.write(Frame(corners()))
        camera.write(Frame(corners(128, 96)))
        camera.write_audio(np.zeros(480, np.float32), 0)
        seen = camera._camera.seen
    assert [read_corners(image) for image in seen] == [["top left", "top right", "bottom left", "bottom right"]] * 2
    assert not Loopback.taken, "it is let go"


def test_a_device_that_goes_is_one_sentence():
    with VirtualCamera(64, 48, Fraction(25)) as camera:
        Loopback.gone = True
        with pytest.raises(UserError, match=f"^--virtual-camera: {DEVICE} is lost: error writing frame: No such device$"):
            camera.write(Frame(corners()))


def test_a_device_that_is_taken_or_not_there_is_one_sentence():
    with VirtualCamera(64, 48, Fraction(25)):
        assert "no v4l2loopback device is free" in virtual_camera.why_none()
        with pytest.raises(UserError, match="^--virtual-camera: no virtual camera: no v4l2loopback device is free .*modprobe"):
            VirtualCamera(64, 48, Fraction(25))
    with pytest.raises(UserError, match="/dev/video9 cannot be opened: .* device not found$"):
        VirtualCamera(64, 48, Fraction(25), "/dev/video9")


def test_without_the_package_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    assert "pyvirtualcam is not installed (pip install" in virtual_camera.why_none()
    with pytest.raises(UserError, match="pyvirtualcam is not installed"):
        VirtualCamera(64, 48, Fraction(25))


def test_the_real_package_gives_an_answer(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyvirtualcam")
    pytest.importorskip("pyvirtualcam")
    why = virtual_camera.why_none()
    if why is not None:
        assert why.startswith("no virtual camera: no v4l2loopback device is free") and "\n" not in why
        return
    with VirtualCamera(640, 480, Fraction(25)) as camera:
        camera.write(Frame(corners(640, 480)))


def test_pyvirtualcam_is_imported_only_when_used():
    code = "import sys; from flashlips_edge.media import virtual_camera; assert 'pyvirtualcam' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
