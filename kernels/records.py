"""Plain data, as it comes out of a YAML file, into a dataclass; every mistake is named in one sentence."""

from __future__ import annotations

import difflib
import math
import reprlib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from flashlips_edge.errors import UserError

Kind = TypeVar("Kind")
SHORT = reprlib.Repr()  # tables that hold each other many times over have a repr without end
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 3, 80, 80
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises UserError naming the file that cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable YAML: {' '.join(str(error).split())[:200]}") from None


def record(kind: type[Kind], raw: Any, where: str) -> Kind:
    """A dataclass of int, float, str, bool, tuples, dictionaries and other such dataclasses, checked field by field.

    `where` begins the sentence. A ValueError of the dataclass's own checks becomes the UserError's words.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a table of {', '.join(f.name for f in fields(kind))} belongs here, not {_short(raw)}")  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    if unknown := [key for key in raw if key not in hints]:
        near = difflib.get_close_matches(str(unknown[0]), hints, 1)
        raise UserError(f"{where}: there is no entry {_short(unknown[0])}{f'; did you mean {near[0]}?' if near else ''}")
    required = {field.name for field in fields(kind) if field.default is MISSING}  # type: ignore[arg-type]
    if missing := sorted(required - raw.keys()):
        raise UserError(f"{where}: the entry {missing[0]} is missing")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in raw.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where} must be a list, not {_short(value)}")
        return tuple(_convert(inner[0], each, where) for each in value)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{where} must be a table of names and values, not {_short(value)}")
        return {key: _convert(inner[1], each, f"{where}.{key}") for key, each in value.items()}
    if inner:  # X | None
        return None if value is None else _convert(inner[0], value, where)
    if is_dataclass(hint):
        return record(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else value
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise UserError(f"{where} must be {WORDS[hint]}, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = " ".join(SHORT.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
