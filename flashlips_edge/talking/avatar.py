"""A recorded face prepared for looping: boxes, latents, reference latents, the closed mouth.

Memory is bounded whatever the recording's length: of the first pictures as many are kept as fit into 512 MB, the others are
decoded again when the loop comes by. For every picture a box and a latent are kept (13 KB: 200 MB for ten minutes).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flashlips_edge.face.detect import Box, Detector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.clip import Clip
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.read_ahead import read_ahead
from flashlips_edge.talking.chain import Latent
from flashlips_edge.talking.identity import Identity, sampled
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.references import References
from flashlips_edge.talking.stage_times import StageTimes
from flashlips_edge.talking.target import Target

KEPT_BYTES = 512_000_000
KEPT_NS = 10_000_000_000
CHUNK_BYTES = 256_000_000  # of pictures, while the loop goes backwards
DECODED_AHEAD = 4


class Avatar:
    """The frames of a clip there and back without end, each with its face.

    identity   chosen from the first pictures, those that are kept; None if there is no face in them
    known      how many these are
    latents    by the picture's number, filled by whoever encodes it first
    Not for use by two threads at once.
    """

    def __init__(self, path: str | Path, networks: Networks, detector: Detector, times: StageTimes):
        self.clip = Clip(path, "--avatar")
        self.frame_rate = self.clip.frame_rate
        self._times = times
        self._crop_size = networks.crop_size
        self._tracker = FaceTracker(detector, float(self.frame_rate))
        self._pts_ns: list[int] = []  # of every picture read so far, and its box
        self._boxes: list[Box | None] = []
        self._kept: list[Frame] = []
        self.latents: dict[int, Latent] = {}
        self._frames = read_ahead(times.each("decode", self.clip.read()), DECODED_AHEAD)
        self._frame_bytes = self.clip.width * self.clip.height * 3 // 2
        for frame in islice(self._frames, max(1, KEPT_BYTES // self._frame_bytes)):
            self._track(frame)
            self._kept.append(frame)
            if frame.pts_ns - self._pts_ns[0] >= KEPT_NS:
                break
        self.known = len(self._kept)
        seen = [(index, box) for index, box in enumerate(self._boxes) if box is not None]
        crops = [(index, Target.of(self._kept[index], box, self._crop_size).crop) for index, box in sampled(seen)]
        references = References(networks, self.latents)
        with times.stage("networks"):
            for index, crop in crops:
                if crop is not None:
                    references.add(crop.image, networks.lips(crop.image[None])[0], index)
            self.identity = Identity.in_references(networks, references) if len(references) else None

    def targets(self) -> Iterator[Target]:
        """Every picture with its face, 0 1 2 ... last ... 2 1 0 1 ..., pts from 0 and without a jump at the turns.

        A second call starts again at 0; one at a time.
        """
        start_ns = self._pts_ns[0]
        for index, frame in enumerate(self._forward(0)):
            yield self._target(index, frame, frame.pts_ns - start_ns)
        for frame in self._frames:
            index = self._track(frame)
            yield self._target(index, frame, frame.pts_ns - start_ns)
        last, pts_ns = len(self._pts_ns) - 1, self._pts_ns[-1] - start_ns
        frame_ns = round(1_000_000_000 / self.frame_rate)
        while last == 0:
            pts_ns += frame_ns
            yield self._target(0, self._kept[0], pts_ns)
        while True:
            for index, frame in self._backward(last):
                pts_ns += self._pts_ns[index + 1] - self._pts_ns[index]
                yield self._target(index, frame, pts_ns)
            for index, frame in enumerate(self._forward(1), start=1):
                pts_ns += self._pts_ns[index] - self._pts_ns[index - 1]
                yield self._target(index, frame, pts_ns)

    def close(self) -> None:
        """Close the file. The avatar gives no more frames."""
        self._frames.close()

    def _track(self, frame: Frame) -> int:
        self._pts_ns.append(frame.pts_ns)
        with self._times.stage("face"):
            self._boxes.append(self._tracker.update(frame.luma, frame.pts_ns))
        return len(self._pts_ns) - 1

    def _target(self, index: int, frame: Frame, pts_ns: int) -> Target:
        with self._times.stage("crop"):
            return Target.of(frame.at(pts_ns), self._boxes[index], self._crop_size, index)

    def _forward(self, start: int) -> Iterator[Frame]:
        yield from self._kept[start:]
        if len(self._kept) < len(self._pts_ns):
            yield from islice(self.clip.read(len(self._kept)), len(self._pts_ns) - len(self._kept))

    def _backward(self, stop: int) -> Iterator[tuple[int, Frame]]:
        """Numbers stop - 1 to 0. What is not kept is decoded in pieces, each from the front."""
        piece = max(1, CHUNK_BYTES // self._frame_bytes)
        while stop > len(self._kept):
            start = max(len(self._kept), stop - piece)
            frames = list(islice(self.clip.read(start), stop - start))
            while frames:
                stop -= 1
                yield stop, frames.pop()
        while stop > 0:
            stop -= 1
            yield stop, self._kept[stop]
