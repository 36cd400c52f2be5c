"""The networks that judge a result. Each may be missing, and then its figures are left out by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from flashlips_edge.evaluation.landmarks import MODEL_NAME, LipReader
from flashlips_edge.evaluation.lpips import Lpips
from flashlips_edge.models import features, syncnet
from flashlips_edge.models.lips import FACE_SIZE
from flashlips_edge.speech.features import MELS_PER_STEP, log_mel

BATCH = 32


class SyncJudge:
    """Our SyncNet: how well lips and sound belong together."""

    def __init__(self) -> None:
        self._network = syncnet.load_syncnet()

    def __call__(self, crops: np.ndarray, pts_ns: np.ndarray, sound: np.ndarray) -> syncnet.Sync | None:
        """Of crops uint8 [N, S, S, 3] at rising times, and the sound from time 0, float32 at 16 kHz; None where they are too short."""
        frames, mel = syncnet.frames_at_25_hz(pts_ns), log_mel(sound)
        if min(len(frames), len(mel) // MELS_PER_STEP) < syncnet.REACH + syncnet.SPAN:
            return None
        return syncnet.sync_score(self._network, crops[frames], mel)


class IdentityJudge:
    """Our feature network: how alike two faces are."""

    def __init__(self) -> None:
        self._network = features.load_features()

    def __call__(self, crops: np.ndarray, truth: np.ndarray) -> float:
        """Mean cosine of two stacks of crops uint8 [N, S, S, 3], pair by pair: 1 where they are equal."""
        cosines = [features.likeness(self._network, *map(_faces, pair)) for pair in zip(_parts(crops), _parts(truth))]
        return float(torch.cat(cosines).mean())


@dataclass(frozen=True)
class Judges:
    """Those that are at hand, and `missing`: which figures are left out for want of one, with the reason."""

    reader: LipReader | None
    sync: SyncJudge | None
    identity: IdentityJudge | None
    lpips: Lpips | None
    missing: dict[str, str]

    @staticmethod
    def open(models: Path | None, default_models: Path, lpips: Path | None) -> Judges:
        """`models` is the folder of the landmark network and `lpips` AlexNet's file, as the user named them; UserError where they
        are not that, or damaged. Without `models` the default folder is tried."""
        missing = {} if lpips else {"LPIPS": "no --lpips file was given"}
        reader = sync = identity = None
        if models is not None or (default_models / MODEL_NAME).is_file():
            reader = LipReader(models or default_models)
        else:
            missing["openings, landmark distance, leak, silence, control"] = "no landmark network: name its folder with --models"
        if syncnet.SHIPPED.is_file():
            sync = SyncJudge()
        else:
            missing["SyncNet's confidence and offset"] = "weights/syncnet is not there"
        if features.SHIPPED.is_file():
            identity = IdentityJudge()
        else:
            missing["identity similarity"] = "weights/features is not there"
        return Judges(reader, sync, identity, Lpips(lpips) if lpips else None, missing)


def _parts(crops: np.ndarray) -> list[np.ndarray]:
    return [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]


def _faces(crops: np.ndarray) -> torch.Tensor:
    """float32 [B, 3, 96, 96] in [0, 1]."""
    faces = np.stack([cv2.resize(crop, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_AREA) for crop in crops])
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
