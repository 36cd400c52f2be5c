"""Presets: a named set of network sizes, as data."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from flashlips_edge.errors import UserError

FOLDER = Path(__file__).parent
SECTIONS = ("autoencoder", "editor", "editor_transformer", "lips", "audio_to_lips")  # that every preset has


def load_preset(name: str) -> dict[str, Any]:
    """The sizes of preset ``name``. Raises UserError naming the presets there are, or what is wrong with the file."""
    names = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--preset {name!r} is not one of {', '.join(names)}{hint}")
    path = FOLDER / f"{name}.yaml"
    try:
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(preset, dict) or type(preset.get("crop_size")) is not int:
        raise UserError(f"{path}: not a preset: crop_size must be a whole number")
    if wrong := [section for section in SECTIONS if type(preset.get(section)) is not dict]:
        raise UserError(f"{path}: not a preset: {wrong[0]} must be a table of sizes")
    return preset
