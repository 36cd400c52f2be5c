"""A camera that other programs see: v4l2loopback on Linux, through pyvirtualcam."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.letterbox import letterbox

TRY = 640, 480, 25.0  # what `why_none` asks for


class VirtualCamera:
    """A sink that shows frames to other programs, such as a browser or a conference. It has no sound.

    width, height, frame_rate    what the others see; frames of another size are put into it with black borders
    device                       /dev/videoN, or None for the first that is free

    Raises UserError in one sentence naming `argument` if there is no such device, or if it goes while it is in use.
    """

    def __init__(self, width: int, height: int, frame_rate: Fraction, device: str | None = None, argument: str = "--virtual-camera"):
        self._argument, self.width, self.height = argument, width, height
        self._camera, problem = _open(width, height, float(frame_rate), device)
        if self._camera is None:
            raise UserError(f"{argument}: {problem}")
        self.device: str = self._camera.device

    def write(self, frame: Frame) -> None:
        try:
            self._camera.send(letterbox(frame, self.width, self.height).image)
        except RuntimeError as error:
            raise UserError(f"{self._argument}: {self.device} is lost: {_one_line(error)}") from None

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        """Nobody hears a camera."""

    def close(self) -> None:
        self._camera.close()

    def __enter__(self) -> VirtualCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def why_none(device: str | None = None) -> str | None:
    """One sentence: what is missing for a virtual camera; None if nothing is."""
    camera, problem = _open(*TRY, device)
    if camera is not None:
        camera.close()
    return problem


def _open(width: int, height: int, frames_per_s: float, device: str | None) -> tuple[Any, str | None]:
    try:
        import pyvirtualcam
    except ImportError:
        return None, "no virtual camera: pyvirtualcam is not installed (pip install 'flashlips-edge[live]')"
    try:
        return pyvirtualcam.Camera(width, height, frames_per_s, device=device), None
    except (RuntimeError, ValueError, OSError) as error:
        missing = "no virtual camera: no v4l2loopback device is free (sudo apt-get install v4l2loopback-dkms; sudo modprobe v4l2loopback)"
        return None, missing if device is None else f"no virtual camera: {device} cannot be opened: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
