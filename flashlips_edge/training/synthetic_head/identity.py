"""Who is rendered: every number that makes a person, drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flashlips_edge.errors import UserError

Colour = tuple[float, float, float]  # linear light, 0..1

SKINS = ((240, 200, 180), (236, 190, 164), (226, 176, 146), (210, 158, 126), (184, 132, 98), (152, 104, 76), (118, 78, 56), (90, 58, 44))
HAIRS = ((28, 23, 22), (44, 32, 27), (70, 48, 35), (98, 66, 42), (132, 92, 56), (178, 138, 88), (142, 68, 36), (205, 172, 122))
EYES = ((66, 42, 26), (88, 58, 34), (112, 92, 52), (92, 116, 88), (92, 124, 152), (122, 142, 158))
STYLES = ("bald", "buzz", "short", "side", "quiff", "fringe", "bob", "long", "wavy", "curly", "afro", "tied")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
COLLARS = ("crew", "vee", "shirt", "jacket", "hood")


def linear(rgb: tuple[float, ...] | np.ndarray) -> Colour:
    """8-bit picture colour to linear light (gamma 2, as the renderer's)."""
    r, g, b = (np.asarray(rgb, np.float64) / 255) ** 2
    return float(r), float(g), float(b)


def _mix(palette: tuple[tuple[int, int, int], ...], position: float) -> np.ndarray:
    position = float(np.clip(position, 0, 1)) * (len(palette) - 1)
    low = min(int(position), len(palette) - 2)
    return np.array(palette[low]) * (low + 1 - position) + np.array(palette[low + 1]) * (position - low)


@dataclass(frozen=True)
class Light:
    """One coloured key light and two ambient colours. Angles in radians; azimuth positive from the picture's right."""

    azimuth: float
    elevation: float
    key: Colour
    sky: Colour
    ground: Colour
    hardness: float  # 0 = overcast, 1 = a small lamp


@dataclass(frozen=True)
class Identity:
    """A person with clothes, backdrop and light. Lengths are in face units, colours in linear light, the rest in 0..1."""

    seed: int
    age: float
    femininity: float
    skin: Colour
    redness: float
    freckles: float
    face_width: float
    jaw_width: float
    chin_width: float
    chin_y: float
    cheek: float
    eye_x: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    eye_colour: Colour
    lash: float
    brow_y: float
    brow_thickness: float
    brow_arch: float
    nose_y: float
    nose_width: float
    nose_height: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    mouth_curve: float
    lip_colour: Colour
    lip_gloss: float
    tooth_colour: Colour
    hair_style: str
    hair_colour: Colour
    hair_volume: float
    hairline: float
    parting: float
    beard: str
    glasses: str
    glasses_colour: Colour
    collar: str
    cloth: Colour
    cloth_second: Colour
    shoulder: float
    backdrop: str
    backdrop_colour: Colour
    backdrop_second: Colour
    light: Light

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """The person of this seed, the same on every machine.

        Raises:
            UserError: ``seed`` is not a whole number from 0 on.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise UserError(f"seed is {seed!r}; it must be a whole number from 0 on")
        rng = np.random.default_rng([0x11B5, int(seed)])

        def around(middle: float, spread: float) -> float:
            return float(middle + spread * np.clip(rng.standard_normal(), -2, 2) / 2)

        fem = float(rng.random())
        woman = fem > 0.5
        age = float(rng.beta(1.3, 1.8))
        tone = float(rng.beta(0.9, 1.1))
        skin = _mix(SKINS, tone) * np.array([1, around(1, 0.05), around(1, 0.08)])
        grey = float(np.clip((age - 0.6) * 3 * rng.random(), 0, 0.95))
        # dark skin seldom comes with fair hair or fair eyes
        hair = _mix(HAIRS, rng.random() ** (1 + 3 * tone) * (1 - 0.75 * tone))
        hair = hair * (1 - grey) + np.array([196, 194, 190]) * grey
        eye = _mix(EYES, rng.random() * (1 - 0.95 * tone) if rng.random() < 0.8 else rng.random() * 0.3)
        if woman:
            style = rng.choice(STYLES, p=[0.01, 0.02, 0.05, 0.05, 0.03, 0.10, 0.17, 0.21, 0.14, 0.08, 0.04, 0.10])
        else:
            style = rng.choice(STYLES, p=[0.12, 0.17, 0.24, 0.18, 0.11, 0.05, 0.01, 0.02, 0.02, 0.05, 0.03, 0.0])
        beard = "none" if woman else str(rng.choice(BEARDS, p=[0.42, 0.24, 0.08, 0.10, 0.16]))
        made_up = woman and rng.random() < 0.5
        lip = skin * np.array([0.90, 0.62, 0.64]) * (1 - 0.06 * tone)
        if made_up:
            lip = lip * 0.55 + 0.45 * np.array([around(176, 40), around(62, 30), around(74, 30)])
        warm = around(0, 1.0)
        key_level = around(1.0, 0.22)
        hard = float(rng.random())
        ambient = 0.40 - 0.17 * hard + around(0, 0.06)
        tint = np.array([1.03 + 0.12 * warm, 1.0, 0.97 - 0.14 * warm])
        ambient_tint = np.array([1 - 0.06 * warm, 1.0, 1 + 0.07 * warm])
        light = Light(
            azimuth=around(0, 1.1),
            elevation=around(0.55, 0.45),
            key=tuple(float(c) for c in tint * key_level * (0.62 + 0.22 * hard)),  # type: ignore[arg-type]
            sky=tuple(float(c) for c in ambient_tint * ambient * 1.1),  # type: ignore[arg-type]
            ground=tuple(float(c) for c in tint * ambient * 0.75),  # type: ignore[arg-type]
            hardness=hard,
        )

        def cloth() -> Colour:
            return linear(np.clip(np.array(_hsv(rng.random(), rng.random() ** 1.5 * 0.8, 0.15 + 0.75 * rng.random())) * 255, 8, 240))

        def wall() -> Colour:
            return linear(np.clip(np.array(_hsv(rng.random(), rng.random() ** 2 * 0.6, 0.2 + 0.7 * rng.random())) * 255, 10, 235))

        return cls(
            seed=int(seed),
            age=age,
            femininity=fem,
            skin=linear(np.clip(skin, 20, 250)),
            redness=float(rng.random()),
            freckles=float(rng.random() ** 4 * (1 - tone)),
            face_width=around(0.985 - 0.03 * fem, 0.09),
            jaw_width=around(1.03 - 0.10 * fem, 0.12),
            chin_width=around(1.04 - 0.14 * fem, 0.18),
            chin_y=around(1.55 - 0.05 * fem, 0.11),
            cheek=around(0.5, 0.5),
            eye_x=around(0.445, 0.035),
            eye_width=around(0.212 + 0.008 * fem, 0.022),
            eye_height=around(0.077 + 0.013 * fem, 0.024),
            eye_tilt=around(0.03, 0.08),
            eye_colour=linear(eye),
            lash=float(np.clip(0.25 + 0.5 * fem + (0.35 if made_up else 0) + around(0, 0.2), 0.1, 1)),
            brow_y=around(-0.25 - 0.03 * fem, 0.06),
            brow_thickness=around(0.055 - 0.018 * fem, 0.02),
            brow_arch=around(0.02 + 0.03 * fem, 0.03),
            nose_y=around(0.625, 0.06),
            nose_width=around(0.235 - 0.02 * fem + 0.045 * tone, 0.05),
            nose_height=around(0.36 - 0.04 * fem, 0.10),
            mouth_y=around(0.965, 0.05),
            mouth_width=around(0.375 - 0.015 * fem, 0.06),
            upper_lip=around(0.078 + 0.014 * fem + 0.035 * tone, 0.045),
            lower_lip=around(0.112 + 0.012 * fem + 0.035 * tone, 0.05),
            mouth_curve=around(0.014, 0.03),
            lip_colour=linear(np.clip(lip, 20, 235)),
            lip_gloss=float(np.clip((0.5 if made_up else 0.22) + around(0, 0.25), 0.05, 1)),
            tooth_colour=linear(np.array([around(234, 14), around(226, 14), around(212, 20)]) * (1 - 0.08 * age)),
            hair_style=str(style),
            hair_colour=linear(np.clip(hair * around(1, 0.12), 14, 225)),
            hair_volume=float(rng.random()),
            hairline=around(-0.93 - (0.14 * age * rng.random() if not woman else 0), 0.10),
            parting=around(0, 0.7),
            beard=beard,
            glasses=str(rng.choice(["none", "round", "square", "thin"], p=[0.76, 0.08, 0.08, 0.08])),
            glasses_colour=linear(_mix(((18, 18, 20), (60, 34, 22), (120, 116, 112)), rng.random())),
            collar=str(rng.choice(COLLARS, p=[0.34, 0.18, 0.22, 0.16, 0.10])),
            cloth=cloth(),
            cloth_second=cloth(),
            shoulder=around(2.15 - 0.28 * fem, 0.25),
            backdrop=str(rng.choice(["plain", "gradient", "bokeh", "room"], p=[0.34, 0.2, 0.2, 0.26])),
            backdrop_colour=wall(),
            backdrop_second=wall(),
            light=light,
        )


def _hsv(h: float, s: float, v: float) -> tuple[float, float, float]:
    """Hue, saturation and value to RGB, all 0..1."""
    r, g, b = (v - v * s * max(0.0, min(1.0, k if k < 4 - k else 4 - k)) for k in ((n + h * 6) % 6 for n in (5, 3, 1)))
    return r, g, b
