"""Lips from the same face, lips encoder to editor, in three ways; copying a frame of the same clip is the mark to beat: the very
frame that `cross` edits (copy), of four the one whose upper face agrees best (best_copy), of all the most alike (like_copy).

masked: the true frame with its mouth hidden is edited, four other frames, drawn at random, are the references. Nothing of the
        true mouth reaches the editor but its lips vector. Needs a bundle whose editor accepts a masked latent.
masked_like: the same, with the references that the run path would choose from the clip's other frames.
cross:  another frame is edited towards the true one's lips. The head's motion between the two cannot be known, so pairs
        whose heads are almost still are reported apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.metrics import mouth_box, psnr
from flashlips_edge.evaluation.pictures import edit, encode, lips_of, reference_latents
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.face import pose
from flashlips_edge.talking.networks import N_REFERENCES, Networks
from flashlips_edge.talking.references import by_likeness

PAIRS_PER_GRID_CLIP = 20
CLIP_FRAMES = 75  # a GRID clip; longer ones give more pairs
APART = 5  # frames between the true frame and any other that the editor sees
MASK_LEVEL = 127.5  # of 255
STILL_DB = 33.0  # upper-face PSNR of a pair from which the heads count as still


def measure(
    networks: Networks, clips: list[Recording], left_out: dict[str, str], seed: int = 0
) -> tuple[dict[str, float], sheets.Rows, list[str]]:
    """Metrics without the set's name (dB, means over all pairs), and rows and captions for a sheet."""
    draw = np.random.default_rng(seed)
    values: dict[str, list[float]] = {}
    rows: sheets.Rows = []
    captions: list[str] = []
    for clip, truth, other, results in each("same_face", clips, lambda clip: (clip, *_clip(networks, clip, draw)), left_out):
        copies, best, like = (clip.crops[column] for column in other.T)
        still = [psnr(upper_face(a), upper_face(b)) >= STILL_DB for a, b in zip(copies, clip.crops[truth])]
        for name, pictures in (("copy", copies), ("best_copy", best), ("like_copy", like), *results.items()):
            dbs = [psnr(mouth_box(a), mouth_box(b)) for a, b in zip(pictures, clip.crops[truth])]
            values.setdefault(f"{name}_db", []).extend(dbs)
            values.setdefault(f"{name}_still_db", []).extend(db for db, keep in zip(dbs, still) if keep)
        shown = np.searchsorted(truth, clip.extremes(truth))
        columns = [p[i] for i in shown for p in (copies, clip.crops[truth], *results.values())]
        rows.append((clip.path.stem, columns))
        captions = ["other", "true", *results] * 2
    if not rows:
        return {}, [], []
    pairs = {"pairs": float(len(values["copy_db"])), "still_pairs": float(len(values["copy_still_db"]))}
    return {name: float(np.mean(dbs)) for name, dbs in values.items() if dbs} | pairs, rows, captions


def upper_face(crop: np.ndarray) -> np.ndarray:
    """Brow to nose of a crop [S, S, ...], which speech does not move; a view."""
    side = crop.shape[0]
    return crop[side // 4 : side // 2, side // 4 : -(side // 4)]


def _clip(networks: Networks, clip: Recording, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Positions of the true frames [P], of the frames to copy [P, 3], and per protocol the results uint8 [P, S, S, 3]."""
    count = len(clip.crops)
    n_pairs = max(2, round(PAIRS_PER_GRID_CLIP * min(count / CLIP_FRAMES, 3)))
    truth = np.sort(draw.choice(count, min(n_pairs, count), replace=False))
    far = [np.flatnonzero(np.abs(np.arange(count) - i) >= APART) for i in truth]
    picks = np.stack([draw.choice(choices, N_REFERENCES, replace=False) for choices in far])  # [P, 4]
    agreement = [[psnr(upper_face(clip.crops[i]), upper_face(clip.crops[j])) for j in row] for i, row in zip(truth, picks)]
    best = picks[np.arange(len(picks)), np.argmax(agreement, axis=1)]
    other = picks[:, 0]
    latents, lips = encode(networks, clip.crops), lips_of(networks, clip.crops)
    poses = np.stack([pose.upper_face(crop) for crop in clip.crops])

    def nearest_first(some: Sequence[np.ndarray]) -> np.ndarray:  # [P, 4], as on the run path
        order = (x[by_likeness(lips[x], poses[x], lips[i], poses[i])[:N_REFERENCES]] for i, x in zip(truth, some))
        return np.stack(list(order))

    drawn, alike = nearest_first(list(picks)), nearest_first(far)
    references, nearest = reference_latents(latents, drawn), reference_latents(latents, alike)
    results = {"cross": edit(networks, latents[other], references, lips[truth])}
    if networks.bundle.manifest.get("editor_accepts_masked"):
        top, bottom, left, right = networks.bundle.manifest["mask"]
        hidden = clip.crops[truth].astype(np.float32)
        hidden[:, top:bottom, left:right] = MASK_LEVEL
        without_mouth = encode(networks, hidden)
        results["masked"] = edit(networks, without_mouth, references, lips[truth])
        results["masked_like"] = edit(networks, without_mouth, nearest, lips[truth])
    return truth, np.stack([other, best, alike[:, 0]], 1), results
