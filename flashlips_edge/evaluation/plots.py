"""Plots as SVG: tracks over time, and one figure of several systems on one axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

import numpy as np

COLOURS = {
    "ours": "#c62828",
    "result": "#c62828",
    "copy": "#2e7d32",
    "speech": "#1565c0",
    "random": "#8e6c00",
    "frozen": "#9e9e9e",
    "source": "#2e7d32",
}
# How good a value is, and which is best where one is.
GOODNESS: dict[str, tuple[Callable[[float], float], float | None]] = {
    "up": (lambda value: value, None),
    "down": (lambda value: -value, None),
    "to one": (lambda value: -abs(value - 1), 1.0),
}
MARGIN_PX, LABELS_PX = 8, 28


def tracks(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], width_px: int = 420, height_px: int = 110) -> str:
    """Lines by name, each seconds [N] and values [N], on common axes; the axes' ends are written."""
    seconds = np.concatenate([line[0] for line in lines.values()])
    values = np.concatenate([line[1] for line in lines.values()])
    (left, right), (low, high) = _range(seconds), _range(values)
    parts = []
    for name, (x, y) in lines.items():
        columns = LABELS_PX + (x - left) / (right - left) * (width_px - LABELS_PX - MARGIN_PX)
        rows = height_px - 18 - (y - low) / (high - low) * (height_px - 18 - MARGIN_PX)
        points = " ".join(f"{column:.1f},{row:.1f}" for column, row in zip(columns, rows))
        stroke = 1.8 if name == "result" else 1.2
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="{stroke}"/>')
    parts.append(_text(LABELS_PX, height_px - 4, f"{left:.0f} s"))
    parts.append(_text(width_px - MARGIN_PX, height_px - 4, f"{right:.1f} s", "end"))
    parts.append(_text(0, 14, f"{high:.2f}"))
    parts.append(_text(0, height_px - 18, f"{low:.2f}"))
    return _svg(width_px, height_px, parts)


def scale(values: Mapping[str, float], better: str, mark: float | None = None, width_px: int = 250, height_px: int = 26) -> str:
    """A dot for each system on one axis that holds them all, and a bar at the mark. Right is better, by the way `better` of GOODNESS:
    where a value is best, the axis ends there, and what lies as far above it as another below is at the same place."""
    goodness, best = GOODNESS[better]
    shown = [goodness(value) for value in [*values.values(), *([] if mark is None else [mark])]]
    low, high = _range(np.array([*shown, *([] if best is None else [goodness(best)])]))

    def column(value: float) -> float:
        return 12 + (goodness(value) - low) / (high - low) * (width_px - 24)

    middle = height_px / 2
    parts = [f'<line x1="12" x2="{width_px - 12}" y1="{middle}" y2="{middle}" stroke="#cfcfcf"/>']
    if mark is not None:
        x = column(mark)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="3" y2="{height_px - 3}" stroke="currentColor" stroke-width="2"/>')
    for name, value in sorted(values.items(), key=lambda item: item[0] == "ours"):  # ours lies on top
        title = f"<title>{escape(name)} {value:.3f}</title>"
        radius = 6 if name == "ours" else 4.5
        parts.append(f'<circle cx="{column(value):.1f}" cy="{middle}" r="{radius}" fill="{COLOURS[name]}">{title}</circle>')
    return _svg(width_px, height_px, parts)


def key(names: list[str]) -> str:
    """Each name after a spot of its colour, as HTML."""
    return " ".join(f'<span class="key"><i style="background:{COLOURS[name]}"></i>{escape(name)}</span>' for name in names)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="10" fill="currentColor" opacity="0.7" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width_px: int, height_px: int, parts: list[str]) -> str:
    return f'<svg width="{width_px}" height="{height_px}" viewBox="0 0 {width_px} {height_px}" role="img">{"".join(parts)}</svg>'
