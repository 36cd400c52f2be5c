"""The measures themselves: plain functions of arrays."""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.errors import UserError

# Rows and columns of the mouth in a crop of 1.25 Haar boxes, as shares of its side (92-140 and 45-115 of 160 px).
MOUTH_ROWS = (92 / 160, 140 / 160)
MOUTH_COLUMNS = (45 / 160, 115 / 160)
LEVEL_MAX = 255.0
SSIM_SIDE, SSIM_SIGMA = 11, 1.5  # px: the window of Wang et al.
DETAIL_SIGMA = 1.5  # px
# No more than this is no motion: of a picture in levels, of an opening, of lip points. Recorded faces move ten times as much and more.
STILL_LEVELS, STILL_OPENING, STILL_LIPS = 0.05, 0.005, 1e-4
SSIM_C1, SSIM_C2 = (0.01 * LEVEL_MAX) ** 2, (0.03 * LEVEL_MAX) ** 2


def mouth_box(crop: np.ndarray) -> np.ndarray:
    """The mouth's part [48/160 S, 70/160 S, ...] of a crop [S, S, ...]; a view."""
    side = crop.shape[0]
    rows = slice(*(round(share * side) for share in MOUTH_ROWS))
    columns = slice(*(round(share * side) for share in MOUTH_COLUMNS))
    return crop[rows, columns]


def psnr(image: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two images with levels 0..255; inf where they are equal.

    `weight` [H, W] (0..1) limits the measure to a region."""
    square = np.square(image.astype(np.float64) - truth.astype(np.float64))
    if weight is not None:
        square = square.mean(-1) if square.ndim == 3 else square
        error = float((square * weight).sum() / max(float(weight.sum()), 1e-12))
    else:
        error = float(square.mean())
    return float("inf") if error == 0 else float(10 * np.log10(LEVEL_MAX**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of two pictures [H, W, 3] with levels 0..255, at least 11 px each way (Wang et al., 2004): 1 where equal.

    Mean over the channels and over all places where the Gaussian window lies inside the picture."""
    a, b = image.astype(np.float64), truth.astype(np.float64)

    def mean(x: np.ndarray) -> np.ndarray:
        edge = SSIM_SIDE // 2
        return cv2.GaussianBlur(x, (SSIM_SIDE, SSIM_SIDE), SSIM_SIGMA)[edge:-edge, edge:-edge]

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    levels = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    return float((levels * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)).mean())


def detail(image: np.ndarray) -> float:
    """How much of a picture [H, W, 3] is finer than about 4 px: mean distance, in levels, from the same picture blurred."""
    levels = image.astype(np.float32)
    return float(np.abs(levels - cv2.GaussianBlur(levels, (0, 0), DETAIL_SIGMA)).mean())


def jitter(track: np.ndarray) -> float:
    """Mean size of the second difference over time of a track [T, ...], T at least 3: what smooth motion leaves out."""
    return float(np.abs(np.diff(track.astype(np.float32), n=2, axis=0)).mean())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two tracks [T]; 0 where one of them does not move."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def partial_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Pearson's r of what a track `given` [T] leaves unexplained in two others [T]; 0 where it explains all of one of them."""
    ab, ag, bg = correlation(a, b), correlation(a, given), correlation(b, given)
    rest = (1 - ag**2) * (1 - bg**2)
    return float((ab - ag * bg) / np.sqrt(rest)) if rest > 1e-9 else 0.0


def spread(track: np.ndarray) -> float:
    """Distance between the 5th and the 95th percentile."""
    low, high = np.percentile(track, (5, 95))
    return max(float(high - low), 1e-6)


def moving(size: float, still: float, what: str) -> float:
    """The size of a motion, by which another is divided. UserError where it is `still`, as in a video of a photo."""
    if size <= still:
        raise UserError(f"{what} does not move: there is nothing to hold the result against")
    return size


def best_lag(track: np.ndarray, truth: np.ndarray, reach: int = 5) -> int:
    """How many frames `track` comes after `truth` (negative: before) where the two agree best, within +-reach."""
    n = min(len(track), len(truth))

    def agreement(lag: int) -> float:
        late, early = track[max(lag, 0) : n + min(lag, 0)], truth[max(-lag, 0) : n - max(lag, 0)]
        return correlation(late, early)

    return max(sorted(range(-reach, reach + 1), key=abs), key=agreement)


def in_order(openings: np.ndarray, step: float = 0.0) -> bool:
    """Whether each opening is more than `step` above the one before it."""
    return bool(np.all(np.diff(openings) > step))
