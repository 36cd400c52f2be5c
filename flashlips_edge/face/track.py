"""One face, followed steadily: detection now and then, optical flow in between, a One-Euro filter over both.

The box moves, grows and tilts with the face's first picture rather than with the detector, whose boxes are a few per cent of a face
apart from frame to frame: references and the frames that they are for then differ in fewer ways.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.face.detect import Box, Detector, luma_of
from flashlips_edge.face.one_euro import OneEuro

DETECT_EVERY = 5  # frames between detections while the face is held
HELD = 0.3  # share of the disagreement with the first picture of the face that is taken over
HELD_LIKENESS = 0.6  # of that picture: below, the head is turned or lit too differently to be compared
MISPLACED = 0.12  # face widths of disagreement with a detection: from here on that picture was cut at a wrong place
CORRECTION = 0.15  # share of a detection's disagreement that is taken over where that picture says nothing or is wrong
TILT = 0.05  # radians; from here on faces are looked for in a picture that is turned back
CUT_LIKENESS = 0.3  # of the held face from frame to frame: below, the picture was cut, and the face is there only if it is found
LOST_AFTER_NS = 1_000_000_000  # without a detection near the held face for this long, it is lost
PATCH_PX = 96  # side of the small picture in which flow is measured
PATCH_SCALE = 1.5  # that picture's side in face widths
GRID = np.stack(np.meshgrid(np.linspace(0.3, 0.7, 7), np.linspace(0.3, 0.56, 5)), -1).reshape(-1, 1, 2)  # brow to nose


class FaceTracker:
    """Follows one face: the largest at first, the same one until it is lost.

    ``update`` takes an RGB or luma frame and its time and gives the smoothed box, or None while there is no face.
    """

    def __init__(self, detector: Detector, frame_rate_hz: float = 25.0) -> None:
        self._detector = detector
        self._frame_ns = int(1e9 / frame_rate_hz)
        self.reset()

    def reset(self) -> None:
        """Forget the face, for a new clip or after a cut."""
        self._state: np.ndarray | None = None  # centre x, centre y, log width, angle
        self._first: np.ndarray | None = None  # patch of the face when it was found
        self._filter = OneEuro()
        self._patch: np.ndarray | None = None
        self._since_detection = 0
        self._seen_ns = 0
        self._last_ns: int | None = None

    def update(self, image: np.ndarray, pts_ns: int) -> Box | None:
        luma = luma_of(image)
        elapsed_s = (self._frame_ns if self._last_ns is None else pts_ns - self._last_ns) * 1e-9
        self._last_ns = pts_ns
        self._since_detection += 1
        if self._state is None:
            if not self._acquire(luma, pts_ns):
                return None
        else:
            self._flow(luma)
            cut = _likeness(self._patch, _patch(luma, self._state)) < CUT_LIKENESS
            if cut or self._since_detection >= DETECT_EVERY:
                self._correct(luma, pts_ns)
            if (cut and self._seen_ns < pts_ns) or pts_ns - self._seen_ns > LOST_AFTER_NS or not _inside(self._state, luma.shape):
                self.reset()
                return None
        assert self._state is not None
        self._patch = _patch(luma, self._state)
        self._patch_state = self._state.copy()
        if self._first is None:
            self._first = self._patch
        unit = np.array([self._unit_px, self._unit_px, 1.0, 1.0]) / 100
        x, y, log_width, angle = map(float, self._filter(self._state / unit, elapsed_s) * unit)
        width = float(np.exp(log_width))
        return Box(x - width / 2, y - width / 2, width, width, angle)

    def _acquire(self, luma: np.ndarray, pts_ns: int) -> bool:
        if self._since_detection > 1 and self._since_detection % 3:
            return False
        boxes = self._detector(luma)
        if not boxes:
            return False
        self._state = _state(boxes[0])
        self._filter = OneEuro()
        self._unit_px = boxes[0].width  # positions are filtered in face widths: a far face and a near one feel the same
        self._seen_ns, self._since_detection = pts_ns, 0
        return True

    def _flow(self, luma: np.ndarray) -> None:
        """Move the state as points between brow and nose move; lips and jaw do not count."""
        assert self._patch is not None
        found = _motion(self._patch, _patch(luma, self._patch_state))
        if found is not None:
            self._follow(found, self._patch_state)

    def _follow(self, motion: Motion, seen: np.ndarray, share: float = 1.0) -> None:
        """Take over a share of a motion that was seen in the patch of the state ``seen``."""
        assert self._state is not None
        pixel = np.exp(seen[2]) * PATCH_SCALE / PATCH_PX
        self._state[:2] += share * _turned(motion.shift, seen[3]) * pixel
        self._state[2] += share * np.clip(np.log(max(motion.spread, 1e-3)), -0.05, 0.05)
        self._state[3] += share * np.clip(motion.angle, -0.1, 0.1)

    def _correct(self, luma: np.ndarray, pts_ns: int) -> None:
        """Make up for what the flow's errors add up to; only a detection says that the face is still there."""
        assert self._state is not None
        self._since_detection = 0
        held = self._hold(luma)
        found = self._detect_near(luma)
        if found is not None:
            self._seen_ns = pts_ns
            wrong = found - self._state
            apart = max(np.abs(wrong[:2]).max() / np.exp(self._state[2]), abs(wrong[2]))
            if apart > MISPLACED:
                self._first = None  # this one takes its place
            if not held or apart > MISPLACED:
                self._state = self._state + CORRECTION * wrong

    def _hold(self, luma: np.ndarray) -> bool:
        """Follow the first picture of the face, if it can be compared with this one."""
        assert self._state is not None and self._first is not None
        now = _patch(luma, self._state)
        found = _motion(self._first, now) if _likeness(self._first, now) > HELD_LIKENESS else None
        if found is not None:
            self._follow(found, self._state.copy(), HELD)
        return found is not None

    def _detect_near(self, luma: np.ndarray) -> np.ndarray | None:
        """Search around the held face only, so that a jacket or a second face is never followed."""
        assert self._state is not None
        held = self._state
        width, angle = float(np.exp(held[2])), float(held[3])
        left, top = (max(0, int(v - width)) for v in held[:2])
        right, bottom = (int(v + width) + 1 for v in held[:2])
        region = luma[top:bottom, left:right]
        if min(region.shape) < 24:
            return None
        scale = min(1.0, 80 / width)
        small = cv2.resize(region, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else region
        middle = (held[:2] - (left, top)) * scale
        if abs(angle) > TILT:
            back = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), np.degrees(angle), 1.0)
            small = cv2.warpAffine(small, back, small.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = [_state(box) for box in self._detector(small)]
        for state in found:  # of the turned picture, to the frame
            offset = state[:2] - middle
            state[:2] = held[:2] + (_turned(offset, angle) if abs(angle) > TILT else offset) / scale
            state[2] -= np.log(scale)
            state[3] = angle
        near = [s for s in found if np.abs(s[:2] - held[:2]).max() < 0.3 * width and abs(s[2] - held[2]) < 0.35]
        return min(near, key=lambda s: np.abs(s[:2] - held[:2]).max() + width * abs(s[2] - held[2]), default=None)


class Motion(NamedTuple):
    """How a face moved from one patch to another: ``shift`` of its middle in patch pixels [2], growth ``spread``, clockwise ``angle``."""

    shift: np.ndarray
    spread: float
    angle: float


def _motion(patch: np.ndarray, other: np.ndarray) -> Motion | None:
    """By the optical flow of points between brow and nose; None where too few of them are found."""
    points = (GRID * PATCH_PX / PATCH_SCALE + PATCH_PX * (1 - 1 / PATCH_SCALE) / 2).astype(np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(patch, other, points, None, winSize=(15, 15), maxLevel=2)
    good = found[:, 0] == 1
    if good.sum() < 8:
        return None
    before, after = points[good, 0], moved[good, 0]
    middle, shift = np.median(before, 0), np.median(after - before, 0)
    b, a = before - middle, after - np.median(after, 0)
    spread, angle = _similarity(b, a)
    to_centre = PATCH_PX / 2 - middle  # the face turns about its box's centre, which is not the points'
    return Motion(shift + spread * _turned(to_centre, angle) - to_centre, spread, angle)


def _similarity(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Growth and rotation in radians of points [N, 2] about the origin, by least squares over the two thirds of them that agree best."""
    spread, angle = 1.0, 0.0
    kept = np.arange(len(before))
    for _ in range(2):
        b, a = before[kept], after[kept]
        along, across = (b * a).sum(), (b[:, 0] * a[:, 1] - b[:, 1] * a[:, 0]).sum()
        spread, angle = float(np.hypot(along, across) / (b * b).sum()), float(np.arctan2(across, along))
        wrong = np.linalg.norm(after - spread * _turned(before, angle), axis=1)
        kept = np.argsort(wrong, kind="stable")[: max(2, 2 * len(before) // 3)]
    return spread, angle


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points [..., 2] turned clockwise about the origin."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _state(box: Box) -> np.ndarray:
    return np.array([*box.centre, np.log(box.width), box.angle])


def _inside(state: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool(0 <= state[0] < shape[1] and 0 <= state[1] < shape[0])


def _likeness(patch: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two patches, -1 to 1; 0 where one is of one colour."""
    a, b = (p.astype(np.float32) - p.mean(dtype=np.float32) for p in (patch, other))
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1.0))


def _patch(luma: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The surroundings of the face as uint8 [PATCH_PX, PATCH_PX]."""
    scale = PATCH_PX / (np.exp(state[2]) * PATCH_SCALE)
    linear = scale * np.array([[np.cos(state[3]), np.sin(state[3])], [-np.sin(state[3]), np.cos(state[3])]])
    matrix = np.column_stack([linear, PATCH_PX / 2 - linear @ state[:2]])
    return cv2.warpAffine(luma, matrix, (PATCH_PX, PATCH_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
