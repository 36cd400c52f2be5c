"""A clip of an avatar prepared for looping: pictures at one even rate, the face's place in each, what the networks make of it.

    <clip>.mp4     the pictures, one for each tick of the avatar's frame rate, without sound and without the camera's own notes
    <clip>.npz     boxes float32 [n, 5], NaN where there is no face, [n, 4] in older folders; latents float16 [n, C, h, w]; back_to int64
    identity.npz   crops uint8 [k, S, S, 3], lips float32 [k, 12], latents float16 [k, C, h, w]

Boxes and pictures serve any bundle; latents and identity are of the networks whose `digest` the folder's record holds.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from math import ceil
from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import Box, Detector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.files import atomic_path
from flashlips_edge.media.clip import Clip
from flashlips_edge.media.colour import rgb_to_yuv
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.loop_video import GROUP, LoopVideo, write_loop_video
from flashlips_edge.media.square import square, square_size
from flashlips_edge.talking.chain import Latent
from flashlips_edge.talking.crossfade import fade_ticks
from flashlips_edge.talking.identity import Identity, sampled
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.references import References
from flashlips_edge.talking.target import Target

SECOND_NS = 1_000_000_000
IDENTITY = "identity.npz"
AGAIN = "prepare the avatar again with python -m flashlips_edge.prepare"
KINDS = {"boxes": "f", "latents": "f", "lips": "f", "crops": "u", "back_to": "iu"}  # NumPy's letters
FINITE = ("latents", "lips")
THUMBNAIL = (64, 36)  # pixels: enough to tell how a person stands
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class PreparedClip:
    """An open clip. ``latents`` float16 [n, C, h, w] or None; ``back_to`` is the idle picture that best follows its last one."""

    name: str
    video: LoopVideo
    boxes: list[Box | None]
    latents: np.ndarray | None = None
    back_to: int = 0


def digest(bundle: Bundle) -> str:
    """Tells bundles apart by what a prepared avatar takes from them: crop size, latent encoder and lips encoder."""
    files = [bundle.manifest["graphs"][graph]["file"] for graph in ("latent_encoder", "lips_encoder")]
    facts = [str(bundle.crop_size), *(bundle.manifest["files"][file] for file in files)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def write_pictures(
    source: Clip,
    folder: Path,
    name: str,
    detector: Detector,
    argument: str,
    idle: PreparedClip | None = None,
    seen: Callable[[], object] = lambda: None,
    longest_s: int | None = None,
) -> PreparedClip:
    """The pictures and boxes of a clip, written to ``folder``, at the frame rate of ``idle`` if given; `seen` is called for each.

    Their pixels are square. What comes after ``longest_s`` seconds is left out.

    Raises:
        UserError: a broken file, a full disk, another size than idle's.
    """
    rate = idle.video.frame_rate if idle is not None else source.frame_rate
    width, height = square_size(source.width, source.height, source.pixel_aspect)
    if idle is not None and (width, height) != (idle.video.width, idle.video.height):
        raise UserError(
            f"{argument} {source.path}: {width} x {height} pixels, but the idle video has "
            f"{idle.video.width} x {idle.video.height}; all clips of an avatar must have one size"
        )
    tracker, boxes = FaceTracker(detector, float(rate)), []
    pictures = (square(frame, source.pixel_aspect) for frame in source.read())
    frames = islice(at_rate(pictures, rate), None if longest_s is None else ceil(longest_s * rate))
    first = next(frames)
    tags = idle.video.group(0)[0].tags if idle is not None else first.tags

    def tracked() -> Iterator[Frame]:
        for number, frame in enumerate(chain([first], frames)):
            boxes.append(tracker.update(frame.luma, int(number * SECOND_NS / rate)))
            seen()
            yield frame if frame.tags == tags else Frame.of_yuv(rgb_to_yuv(frame.image, tags), frame.pts_ns)

    path = folder / f"{name}.mp4"
    write_loop_video(path, tracked(), width, height, rate, argument)
    return PreparedClip(name, LoopVideo(path, argument), boxes)


def at_rate(frames: Iterable[Frame], frame_rate: Fraction) -> Iterator[Frame]:
    """For each tick the last picture that came until half a tick after it; a gap of more than a second is left out."""
    frame_ns, tick, left_out_ns = SECOND_NS / frame_rate, 0, 0
    last: Frame | None = None
    for frame in frames:
        if last is not None:
            if frame.pts_ns - last.pts_ns > SECOND_NS:
                left_out_ns += frame.pts_ns - last.pts_ns - round(frame_ns)
            while (tick + Fraction(1, 2)) * frame_ns < frame.pts_ns - left_out_ns:
                yield last
                tick += 1
        last = frame
    if last is not None:
        yield last


def targets(clip: PreparedClip, crop_size: int, chosen: Iterable[int] | None = None) -> Iterator[Target]:
    """The pictures with these numbers (they rise; by default all), each with its face. Raises ERRORS if one cannot be read."""
    group, frames = -1, []
    for number in range(clip.video.count) if chosen is None else chosen:
        if number // GROUP != group:
            group = number // GROUP
            frames = clip.video.group(group)
        yield Target.of(frames[number % GROUP], clip.boxes[number], crop_size, number)


def references_in(clips: Iterable[PreparedClip], networks: Networks, latents: dict[int, Latent] | None = None) -> References | None:
    """What the networks know of the face from crops all over every clip, whose light may differ; None if there is no face.

    ``latents`` are the clips', by their pictures' numbers one after the other.
    """
    references, first = References(networks, latents), 0
    for clip in clips:
        faces = sampled([number for number, box in enumerate(clip.boxes) if box is not None])
        for number, target in zip(faces, targets(clip, networks.crop_size, faces)):
            if target.crop is not None:
                index = None if latents is None else first + number
                references.add(target.crop.image, networks.lips(target.crop.image[None])[0], index)
        first += clip.video.count
    return references if len(references) else None


def encode(clip: PreparedClip, networks: Networks, seen: Callable[[], object] = lambda: None) -> PreparedClip:
    """The clip with the latents of all its pictures; zero where there is no face."""
    latents: np.ndarray | None = None
    for number, target in enumerate(targets(clip, networks.crop_size)):
        if target.crop is not None:
            latent = networks.encode(target.crop.image[None])[0].astype(np.float16)
            if latents is None:
                latents = np.zeros((clip.video.count, *latent.shape), np.float16)
            latents[number] = latent
        seen()
    return replace(clip, latents=latents)


def follow_on(clip: PreparedClip, idle: PreparedClip) -> PreparedClip:
    """The clip with the idle picture that is most like the one where it fades out: there the loop goes on after it."""
    last = max(0, clip.video.count - fade_ticks(clip.video.frame_rate))
    wanted = _thumbnail(clip.video.group(last // GROUP)[last % GROUP])
    groups = range(-(-idle.video.count // GROUP))
    apart = [float(np.abs(_thumbnail(frame) - wanted).mean()) for group in groups for frame in idle.video.group(group)]
    return replace(clip, back_to=int(np.argmin(apart)))


def save(clip: PreparedClip, folder: Path) -> None:
    """Write the clip's npz."""
    boxes = np.array([box if box is not None else [np.nan] * len(Box._fields) for box in clip.boxes], np.float32)
    _write(folder / f"{clip.name}.npz", boxes=boxes, latents=clip.latents, back_to=np.int64(clip.back_to))


def save_identity(references: References, folder: Path) -> None:
    """Write identity.npz."""
    _write(folder / IDENTITY, **references.arrays())


def load(folder: Path, name: str) -> PreparedClip:
    """A clip as `save` wrote it, its video opened. UserError if a file is missing or damaged."""
    video = LoopVideo(folder / f"{name}.mp4", "--avatar")
    try:
        shapes: dict[str, Shape] = {"boxes": (video.count, None), "latents": (video.count, None, None, None), "back_to": ()}
        arrays = _read(folder / f"{name}.npz", shapes)
        if arrays["boxes"].shape[1] not in (4, len(Box._fields)):
            raise UserError(f"--avatar {folder}: boxes in {name}.npz has shape {list(arrays['boxes'].shape)}; {AGAIN}")
        boxes = [None if np.isnan(box).any() else Box(*map(float, box)) for box in arrays["boxes"]]
        if not all(box is None or (np.isfinite(box).all() and min(box.width, box.height) > 0) for box in boxes):
            raise UserError(f"--avatar {folder}: boxes in {name}.npz holds one that is none; {AGAIN}")
    except UserError:
        video.close()
        raise
    return PreparedClip(name, video, boxes, arrays["latents"], int(arrays["back_to"]))


def check_together(clips: list[PreparedClip]) -> None:
    """UserError where a clip's pictures are of another size than those of the idle clip, the first of them, or it goes back to one that
    the idle clip does not have."""
    count, size = clips[0].video.count, (clips[0].video.width, clips[0].video.height)
    for clip in clips:
        if (own := (clip.video.width, clip.video.height)) != size:
            words = f"{clip.name}.mp4 is {own[0]}x{own[1]} pixels, and {clips[0].name}.mp4 {size[0]}x{size[1]}"
            raise UserError(f"--avatar {clip.video.path.parent}: {words}; {AGAIN}")
        if not 0 <= clip.back_to < count:
            words = f"back_to in {clip.name}.npz is {clip.back_to}, and {clips[0].name} has the pictures 0 to {count - 1}"
            raise UserError(f"--avatar {clip.video.path.parent}: {words}; {AGAIN}")


def load_identity(folder: Path, networks: Networks) -> Identity:
    """The identity as `save_identity` wrote it, of the same networks; none of them is run. UserError as `load`."""
    size = networks.crop_size
    shapes: dict[str, Shape] = {"crops": (None, size, size, 3), "lips": (None, 12), "latents": (None, None, None, None)}
    arrays = _read(folder / IDENTITY, shapes)
    if len({len(array) for array in arrays.values()}) > 1:
        raise UserError(f"--avatar {folder}: {IDENTITY} holds more of one kind than of another; {AGAIN}")
    return Identity.in_references(networks, References.of_arrays(networks, **arrays))


def _write(path: Path, **arrays: np.ndarray | None) -> None:
    with atomic_path(path) as temporary:
        try:
            np.savez(temporary, **{name: array for name, array in arrays.items() if array is not None})
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from None


def _read(path: Path, shapes: dict[str, Shape]) -> dict[str, np.ndarray]:
    """The arrays of a file, of these shapes, None for any length of 1 or more, and of their kinds."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(f"--avatar {path.parent}: {path.name} is missing or damaged; {AGAIN}") from None
    for name, shape in shapes.items():
        array = found[name]
        if array.ndim != len(shape) or any(n != m if m is not None else n < 1 for n, m in zip(array.shape, shape)):
            raise UserError(f"--avatar {path.parent}: {name} in {path.name} has shape {list(array.shape)}; {AGAIN}")
        if array.dtype.kind not in KINDS[name] or (name in FINITE and not np.isfinite(array).all()):
            raise UserError(f"--avatar {path.parent}: {name} in {path.name} holds what it cannot hold; {AGAIN}")
    return found


def _thumbnail(frame: Frame) -> np.ndarray:
    return cv2.resize(frame.luma, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.int16)
