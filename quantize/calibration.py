"""The calibration set: frames chosen for coverage from real videos and the synthetic head, and sounds; hashed.

Coverage: every candidate frame is described by its lips vector, and by how much tooth shows, how dark it is, the skin's colour and how far
the face is turned. Frames are taken one after another, each the farthest from all that were taken: open and closed mouths, teeth, profiles,
dark pictures and several skins come first, the thousandth frame like another never.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.folder import VIDEOS
from flashlips_edge.evaluation.pictures import lips_of
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.face.pose import upper_face
from flashlips_edge.speech.features import SAMPLE_RATE_HZ
from flashlips_edge.talking.networks import N_REFERENCES, Networks
from flashlips_edge.talking.references import by_likeness, four_of
from flashlips_edge.training import synthetic_clips

FRAMES = 48
SOUNDS = 10
SOUND_S = 4
VIDEOS_PER_SET = 12
EVERY = 5  # frames of a video
SYNTHETIC_SEEDS = range(1000, 1010)
DARKENED, DARK = 6, 0.35  # one recorded face in six is there in a third of its light, too
TOOTH_LIGHT, TOOTH_COLOUR = 120, 40  # of 255: brighter than lips, and less coloured


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """N frames and M sounds.

    crops       uint8 [N, S, S, 3]: what is edited
    drivers     uint8 [N, S, S, 3]: another frame of the same face, whose lips the crop shall have
    references  uint8 [N, 4, S, S, 3]: as the run path chooses them
    sounds      float32 [M, samples] at 16 kHz
    faces       uint8 [M, 4, S, S, 3]: four crops of who says it
    sources     name of the clip that each frame is from
    """

    crops: np.ndarray
    drivers: np.ndarray
    references: np.ndarray
    sounds: np.ndarray
    faces: np.ndarray
    sources: np.ndarray

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        digest = hashlib.sha256()
        for array in (self.crops, self.drivers, self.references, self.sounds, self.faces):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def part(self, frames: int, sounds: int) -> CalibrationSet:
        """The first ``frames`` and ``sounds``: the farthest apart, for what is run often."""
        return CalibrationSet(
            self.crops[:frames],
            self.drivers[:frames],
            self.references[:frames],
            self.sounds[:sounds],
            self.faces[:sounds],
            self.sources[:frames],
        )

    def synthetic(self, frames: int) -> CalibrationSet:
        """The first ``frames`` that are the synthetic head's, without sounds."""
        drawn = [i for i, source in enumerate(self.sources) if str(source).startswith("synthetic.")][:frames]
        return CalibrationSet(
            self.crops[drawn], self.drivers[drawn], self.references[drawn], self.sounds[:0], self.faces[:0], self.sources[drawn]
        )

    def save(self, path: Path) -> None:
        """As an .npz."""
        with open(path, "wb") as file:
            np.savez(file, **vars(self))

    @staticmethod
    def read(path: Path) -> CalibrationSet:
        with np.load(path, allow_pickle=False) as arrays:
            return CalibrationSet(**arrays)


@dataclass(frozen=True, eq=False)
class _Face:
    """Some crops of one face, [n, S, S, 3], with lips [n, 12]; its sound [samples], if it has one."""

    name: str
    crops: np.ndarray
    lips: np.ndarray
    sound: np.ndarray | None


def default_folder() -> Path:
    """The training part of the recorded data. UserError where it is not there."""
    folder = Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data") / "train"
    if not folder.is_dir():
        raise UserError(f"--calibration is missing, and {folder} is not there: name a folder of videos, or set FLASHLIPS_DATA")
    return folder


def test_folder() -> Path:
    """The part of the recorded data that nothing is trained or calibrated on. UserError where it is not there."""
    folder = Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data") / "test"
    if not folder.is_dir():
        raise UserError(f"the recorded test data is not at {folder}: set FLASHLIPS_DATA to the folder that holds it")
    return folder


def choose(folder: Path, bundle: Bundle, frames: int = FRAMES, sounds: int = SOUNDS, drawn: int = FRAMES // 3) -> CalibrationSet:
    """The set from the videos in ``folder`` and in the folders in it; ``drawn`` of its frames are the synthetic head's.

    UserError where there is no video, or none that shows a face."""
    networks = Networks(bundle)
    recorded = _recorded(folder, networks)
    recorded += [_darkened(face, networks) for face in recorded[::DARKENED]]
    picked = _far_apart(recorded, frames - drawn) + (_far_apart(_synthetic(networks), drawn) if drawn else [])
    picked = [picked[i] for i in np.random.default_rng(0).permutation(len(picked))]  # so that the first of them are of both kinds
    speaking = [face for face in recorded if face.sound is not None]
    speakers = [speaking[i] for i in np.unique(np.linspace(0, len(speaking) - 1, sounds).astype(int))] if speaking else []
    if not speakers:
        raise UserError(f"--calibration {folder}: none of its videos has sound; audio_to_lips needs some speech")
    return CalibrationSet(
        np.stack([face.crops[i] for face, i in picked]),
        np.stack([face.crops[_driver(face, i)] for face, i in picked]),
        np.stack([face.crops[_references(face, i)] for face, i in picked]),
        np.stack([face.sound for face in speakers if face.sound is not None]),
        np.stack([face.crops[np.linspace(0, len(face.crops) - 1, N_REFERENCES).astype(int)] for face in speakers]),
        np.array([face.name for face, _ in picked]),
    )


def _darkened(face: _Face, networks: Networks) -> _Face:
    crops = (face.crops * DARK).astype(np.uint8)
    return _Face(f"{face.name} darkened", crops, lips_of(networks, crops), None)


def _far_apart(faces: list[_Face], count: int) -> list[tuple[_Face, int]]:
    places = [(face, number) for face in faces for number in range(len(face.crops))]
    described = np.stack([_describe(face.crops[number], face.lips[number]) for face, number in places])
    return [places[i] for i in farthest_first(described, count)]


def farthest_first(points: np.ndarray, count: int) -> list[int]:
    """Numbers of ``count`` of the points [N, D], scaled to their deviation: each is the farthest from all before it."""
    scaled = (points - points.mean(0)) / np.maximum(points.std(0), 1e-6)
    picked = [int(np.argmin(np.square(scaled).sum(1)))]
    apart = np.linalg.norm(scaled - scaled[picked[0]], axis=1)
    while len(picked) < min(count, len(points)):
        picked.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.linalg.norm(scaled - scaled[picked[-1]], axis=1))
    return picked


def _describe(crop: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Lips [12] weighed as four, tooth, darkness, the cheeks' colour and how unlike left and right are: [17]."""
    side = len(crop)
    mouth = crop[side * 92 // 160 : side * 140 // 160, side * 45 // 160 : side * 115 // 160].astype(np.int32)
    tooth = ((mouth.min(-1) > TOOTH_LIGHT) & (np.ptp(mouth, axis=-1) < TOOTH_COLOUR)).mean()
    luma, red, blue = cv2.cvtColor(crop, cv2.COLOR_RGB2YCrCb)[side // 2 : side * 3 // 4, side // 5 : -side // 5].reshape(-1, 3).mean(0)
    upper = upper_face(crop)
    turned = np.abs(upper - upper_face(np.ascontiguousarray(crop[:, ::-1]))).mean()
    return np.concatenate([lips / np.sqrt(3), [tooth, luma, red, blue, turned]])


def _driver(face: _Face, number: int) -> int:
    """The frame of the face whose lips are the most unlike: the editor has to work."""
    return int(np.argmax(np.linalg.norm(face.lips - face.lips[number], axis=1)))


def _references(face: _Face, number: int) -> np.ndarray:
    poses = np.stack([upper_face(crop) for crop in face.crops])
    chosen = by_likeness(face.lips, poses, face.lips[_driver(face, number)], poses[number])[:N_REFERENCES]
    return np.array(four_of(chosen.tolist()))


def _recorded(folder: Path, networks: Networks) -> list[_Face]:
    faces, why = [], ""
    for path in tqdm(videos_in(folder), "calibration videos", unit="video", leave=False):
        with tempfile.TemporaryDirectory() as store:
            try:
                clip = Recording.open(path, networks.crop_size, None, Path(store), limit_ns=SOUND_S * 1_000_000_000)
            except UserError as error:
                why = str(error)
                continue
            crops = np.array(clip.crops[::EVERY])
            faces.append(_Face(clip.name, crops, lips_of(networks, crops), _sound(clip)))
    if not faces:
        raise UserError(f"--calibration {folder}: no video there can be used: {why.rstrip('.')}")
    return faces


def videos_in(folder: Path) -> list[Path]:
    """Those that are looked at: at most VIDEOS_PER_SET of the folder and of each folder in it. UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"--calibration {folder}: no such folder; name one that holds videos")
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    paths = [path for place in places for path in _some(place)]
    if not paths:
        raise UserError(f"--calibration {folder} is empty: it, or the folders in it, must hold videos ({', '.join(VIDEOS)})")
    return paths


def _some(place: Path) -> list[Path]:
    files = sorted(path for path in place.glob("[!.]*") if path.suffix.lower()[1:] in VIDEOS)
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, VIDEOS_PER_SET).astype(int))] if files else []


def _sound(clip: Recording) -> np.ndarray | None:
    try:
        sound = clip.sound()
    except UserError:
        return None
    length = SOUND_S * SAMPLE_RATE_HZ
    return np.resize(sound, length).astype(np.float32)


def _synthetic(networks: Networks) -> list[_Face]:
    faces = []
    for seed in SYNTHETIC_SEEDS:
        crops = np.asarray(synthetic_clips.make(seed, networks.crop_size)["crops.npy"])
        faces.append(_Face(f"synthetic.{seed}", crops, lips_of(networks, crops), None))
    return faces
