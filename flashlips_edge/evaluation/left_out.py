"""What fails is left out by name, and the rest is still measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from flashlips_edge.errors import reason


class Named(Protocol):
    """A clip, or the path of a picture."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)
Found = TypeVar("Found")


def each(part: str, items: Iterable[Item], measure: Callable[[Item], Found], left_out: dict[str, str]) -> list[Found]:
    """What `measure` gives for each item. One on which it fails goes to `left_out` as `<part> on <name>`, with the reason."""
    found = []
    for item in items:
        try:
            found.append(measure(item))
        except Exception as error:  # whatever it is about one odd file must not cost the others
            left_out[f"{part} on {item.name}"] = reason(error)
    return found
