"""Presets: a named set of network sizes, as data."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from flashlips_edge.errors import UserError

FOLDER = Path(__file__).parent


def load_preset(name: str) -> dict[str, Any]:
    """The sizes of preset ``name``. Raises UserError naming the presets there are."""
    names = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"preset {name!r} is not one of {', '.join(names)}{hint}")
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
