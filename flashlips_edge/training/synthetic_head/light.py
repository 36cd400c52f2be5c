"""Light on a surface: a wrapped key light, sky and ground, a soft highlight, and the gamma-2 picture curve."""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.identity import Light


def key_direction(light: Light, yaw: float = 0.0, pitch: float = 0.0) -> np.ndarray:
    """Unit vector to the key light in the frame of a head turned by ``yaw`` and ``pitch``: float32 [3]."""
    azimuth, elevation = light.azimuth, light.elevation
    x, y, z = np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)
    x, z = x * np.cos(yaw) - z * np.sin(yaw), x * np.sin(yaw) + z * np.cos(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    return np.float32([x, y, z])


def shade(
    albedo: np.ndarray, normal: np.ndarray, crevice: np.ndarray | None, light: Light, direction: np.ndarray, gloss: float, exponent: int = 3
) -> np.ndarray:
    """Linear light leaving a surface: float32 [H, W, 3].

    Wrapped Lambert (red wraps further than blue, as light does under skin) + hemisphere + a Blinn highlight of strength ``gloss`` whose
    power is 2 ** ``exponent``.
    """
    half = direction + np.float32([0, 0, 1])
    half /= np.linalg.norm(half)
    rows = np.float32([direction, [0, -0.5, 0], half])
    n_l, up, n_h = cv2.split(cv2.transform(normal, rows))
    channels = []
    for i, wrap in enumerate((0.42, 0.28, 0.22)):
        wrap *= 1.15 - 0.5 * light.hardness
        diffuse = np.maximum(n_l + wrap, 0)
        diffuse *= light.key[i] / (1 + wrap)
        diffuse += (light.sky[i] + light.ground[i]) / 2 + up * (light.sky[i] - light.ground[i])
        if crevice is not None:
            diffuse *= crevice
        channels.append(diffuse)
    lit = cv2.merge(channels)
    lit *= albedo
    if gloss > 0:
        spot = np.maximum(n_h, 0)
        for _ in range(exponent):
            spot *= spot
        spot *= gloss
        if crevice is not None:
            spot *= crevice
        lit += cv2.merge([spot * k for k in light.key])
    return lit


def to_picture(colour: np.ndarray) -> np.ndarray:
    """Linear light to uint8 with a soft shoulder: bright skin must not burn out."""
    colour = np.maximum(colour, 0)
    toned = colour / (1 + 0.22 * colour * colour)
    return cv2.convertScaleAbs(cv2.sqrt(toned), alpha=255)
