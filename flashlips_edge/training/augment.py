"""Other people from the same clip: one smooth warp, mirror, colour, light and colour of the lips per clip, and heads that move where
the clip's did not."""

from __future__ import annotations

from itertools import starmap

import cv2
import numpy as np

from flashlips_edge.training.lip_colour import other_lips

WARP_PX = 3.5  # deviation of the smooth displacement at 160 px
LIGHT = 0.25  # strength of the added light's gradient
MOVING_SHARE = 0.5  # of the people move their heads
LIPS_SHARE = 0.4  # of the people have lips of another colour
POSES = 3  # of a head that moves: each with enough frames to find another mouth in the same pose
HEAD = (0.47, 0.62, 0.42)  # half axes of the ellipsoid that a turned head is taken for, in crops
HEAD_CENTRE_Y = 0.08  # below the crop's
FOLLOWED = 0.75  # of a turned face's shift the tracker's box follows

Grids = tuple[np.ndarray, np.ndarray]


def another_person(
    crops: np.ndarray, generator: np.random.Generator, moving_share: float = MOVING_SHARE
) -> tuple[np.ndarray, np.ndarray | None]:
    """crops uint8 [T, S, S, 3] -> the same shape, as if another face had spoken under another light; and, where its head moves, the
    same with a still head.

    A head that moves has a few poses, each frame one of them at random, so that references show other poses than the target's.
    """
    size = crops.shape[1]
    if generator.random() < LIPS_SHARE:
        crops = other_lips(crops, generator)
    if generator.random() < 0.5:
        crops = np.ascontiguousarray(crops[:, :, ::-1])
    person = _warp(size, generator)
    light = _light(size, generator)
    matrix, offset, gamma = _colour(generator)
    table = (255 * (np.arange(256) / 255) ** gamma).astype(np.float32)
    blur = generator.uniform(0.4, 1.0) if generator.random() < 0.2 else 0.0

    def seen(crop: np.ndarray, grids: Grids) -> np.ndarray:
        warped = cv2.remap(crop, *grids, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if blur:
            warped = cv2.GaussianBlur(warped, (0, 0), blur)
        return np.clip(cv2.transform(table[warped], matrix) * light + offset, 0, 255).astype(np.uint8)

    still = np.stack([seen(crop, person) for crop in crops])
    if generator.random() >= moving_share:
        return still, None
    poses = [_moved(person, pose) for pose in starmap(_pose, [(size, generator)] * POSES)]
    return np.stack([seen(crop, poses[pose]) for crop, pose in zip(crops, generator.integers(POSES, size=len(crops)))]), still


def _warp(size: int, generator: np.random.Generator) -> Grids:
    """Sampling grids float32 [S, S]: rotation, unequal scale, shift and a smooth displacement."""
    unit = size / 160
    y, x = _plane(size)
    angle = generator.normal(0, 0.12)  # tilted heads are rare in the data, not in the world
    scale_x, scale_y = generator.normal(1, 0.07), generator.normal(1, 0.07)
    rotated_x = (np.cos(angle) * x - np.sin(angle) * y) * scale_x + generator.normal(0, 3 * unit)
    rotated_y = (np.sin(angle) * x + np.cos(angle) * y) * scale_y + generator.normal(0, 3 * unit)
    bumps = generator.normal(0, WARP_PX * unit, (2, 5, 5)).astype(np.float32)
    dx, dy = (cv2.resize(b, (size, size), interpolation=cv2.INTER_CUBIC) for b in bumps)
    centre = (size - 1) / 2
    return (rotated_x + dx + centre).astype(np.float32), (rotated_y + dy + centre).astype(np.float32)


def _pose(size: int, generator: np.random.Generator) -> Grids:
    """Sampling grids float32 [S, S] of a head that is turned; tilted, nearer and elsewhere only as far as the tracker leaves it so."""
    yaw, pitch, roll = generator.normal(0, (0.25, 0.13, 0.05))
    scale, shift = generator.normal(1, 0.03), generator.normal(0, 0.012 * size, 2)
    y, x = _plane(size)
    tilted_x = (np.cos(roll) * x - np.sin(roll) * y) * scale + shift[0]
    tilted_y = (np.sin(roll) * x + np.cos(roll) * y) * scale + shift[1]
    return turned(tilted_x / size, tilted_y / size, yaw, pitch, size)


def turned(x: np.ndarray, y: np.ndarray, yaw: float, pitch: float, size: int) -> Grids:
    """Where the points x, y [S, S] of a turned head, in crops from the centre, lie in the picture of the head that looks ahead:
    sampling grids float32 [S, S] in pixels. The head is an ellipsoid, what is beside it a plane; angles in radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    d, t = np.cos(pitch), np.sin(pitch)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, d, t], [0, -t, d]])
    x, y = x + FOLLOWED * HEAD[2] * rotation[0, 2], y - HEAD_CENTRE_Y + FOLLOWED * HEAD[2] * rotation[1, 2]
    form = rotation @ np.diag(1 / np.square(HEAD)) @ rotation.T  # q' form q = 1 is the turned ellipsoid
    slope = (form[0, 2] * x + form[1, 2] * y) / form[2, 2]
    rest = (form[0, 0] * x**2 + 2 * form[0, 1] * x * y + form[1, 1] * y**2 - 1) / form[2, 2]
    z = -slope + np.sqrt(np.maximum(slope**2 - rest, 0))  # its front; beside it the plane through its rim
    ahead = np.stack([x, y, z], -1) @ rotation  # turned back
    centre = (size - 1) / 2
    return (ahead[..., 0] * size + centre).astype(np.float32), ((ahead[..., 1] + HEAD_CENTRE_Y) * size + centre).astype(np.float32)


def _moved(person: Grids, pose: Grids) -> Grids:
    """One pair of grids for both: the pose's points, then moved as the person's face is."""
    size = len(pose[0])
    shifts = [grid - points - (size - 1) / 2 for grid, points in zip(person, reversed(_plane(size)))]
    x, y = (cv2.remap(np.float32(shift), *pose, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for shift in shifts)
    return pose[0] + x, pose[1] + y


def _plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    """y and x float32 [S, S] of every pixel, from the centre."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - (size - 1) / 2
    return y, x


def _light(size: int, generator: np.random.Generator) -> np.ndarray:
    """A soft multiplicative light float32 [S, S, 3]."""
    bumps = 1 + generator.normal(0, LIGHT / 2, (3, 3, 1)) + generator.normal(0, LIGHT / 6, (3, 3, 3))
    return cv2.resize(bumps.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _colour(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A colour matrix [3, 3] (brightness, saturation, channel gains), an offset [3] and a gamma."""
    luma = np.full((3, 3), 1 / 3)
    saturation = generator.uniform(0.4, 1.4)
    gains = np.diag(generator.normal(1, 0.1, 3) * generator.uniform(0.65, 1.2))
    matrix = gains @ (luma + saturation * (np.eye(3) - luma))
    if generator.random() < 0.15:
        matrix = matrix[generator.permutation(3)]
    return matrix.astype(np.float32), generator.normal(0, 6, 3).astype(np.float32), float(generator.uniform(0.65, 1.5))
