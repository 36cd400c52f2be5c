"""A recorded face's pictures, from a video or from a folder of pictures or videos."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile

PICTURES = ("png", "jpg", "jpeg", "bmp", "webp")
VIDEOS = ("mp4", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m4v", "flv")
SUFFIXES = [*PICTURES, *VIDEOS]  # looked for in a folder


class Clip:
    """Frames in display order: of a video, or of all files of a folder by name, a picture being one frame.

    width, height, frame_rate and pixel_aspect are the first file's. UserError when another differs in size, or when nothing is
    there. `argument` is what the error calls the path.
    """

    def __init__(self, path: str | Path, argument: str):
        self.path, self._argument = Path(path), argument
        self._files = [self.path]
        if self.path.is_dir():
            files = (file for file in self.path.iterdir() if not file.name.startswith("."))  # one that is being written, or the system's
            self._files = sorted(file for file in files if file.suffix.lower()[1:] in SUFFIXES)
            if not self._files:
                raise UserError(f"{argument} {path}: the folder holds no picture and no video; its files may be {', '.join(SUFFIXES)}")
        with VideoFile(self._files[0], argument) as video:
            self.width, self.height = video.width, video.height
            self.frame_rate, self.pixel_aspect = video.frame_rate, video.pixel_aspect

    def read(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start` on."""
        return islice(self._read(), start, None)

    def _read(self) -> Iterator[Frame]:
        offset_ns = 0
        for file in self._files:
            with VideoFile(file, self._argument) as video:
                if (video.width, video.height) != (self.width, self.height):
                    raise UserError(
                        f"{self._argument} {file}: {video.width} x {video.height} pixels, but {self._files[0].name} has "
                        f"{self.width} x {self.height}; all files of a folder must have one size"
                    )
                end_ns = offset_ns
                for frame in video:
                    end_ns = offset_ns + frame.pts_ns + round(1_000_000_000 / self.frame_rate)
                    yield frame.at(offset_ns + frame.pts_ns)
            offset_ns = end_ns
