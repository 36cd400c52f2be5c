"""The report: one HTML file with its pictures and plots inside it, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

import cv2

from flashlips_edge.evaluation import plots, report
from flashlips_edge.evaluation.marks import MARKS, reached
from flashlips_edge.evaluation.parts import Findings
from flashlips_edge.evaluation.protocols import Scene
from flashlips_edge.evaluation.systems import SYSTEMS
from flashlips_edge.files import atomic_path

SHOWN = 3  # clips of a set that are drawn
JPEG_QUALITY = 82
ARROWS = {"up": "↑", "down": "↓", "to one": "→ 1"}
PROTOCOLS = {
    "own": "Reconstruction: a clip speaks its own sound",
    "crossed": "Cross audio: a clip speaks the sound of another clip",
}
MEANINGS = {
    "copy": "the source, merely encoded again: the best picture there can be; under another's speech its lips are the source's own",
    "ours": "the bundle",
    "random": "the same networks with random lips of the right tempo and spread",
    "frozen": "the same networks hearing silence",
}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; } h4 { margin: 1rem 0 0; }
.quiet { opacity: .7; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
td, th { padding: .22rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td:first-child, th:first-child, td.word { text-align: left; }
tr.ours td { font-weight: 600; background: var(--soft); }
.reached { color: #2e7d32; } .missed { color: #c62828; font-weight: 600; }
.key { margin-right: 1em; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .35em; }
.pair { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; } figure { margin: .6rem 0; } figcaption { font-size: 13px; }
img { max-width: 100%; }
"""


def write(path: Path, findings: Findings, circumstances: dict[str, object]) -> None:
    """The report of what was found, to `path`."""
    where = [f"{name} {circumstances[name]}" for name in ("bundle", "preset", "commit", "date", "device")]
    body = [
        "<h1>FlashLips Edge: evaluation</h1>",
        f'<p class="quiet">{escape(" · ".join(where))}</p>',
        *_marks(findings.metrics),
        *_protocols(findings),
        *_between(findings),
        *_parts(findings),
        *_scenes(findings),
        *_pages(findings.pages),
        *_left_out(findings.left_out),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Evaluation</title><style>{STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _marks(metrics: dict[str, float]) -> list[str]:
    rows, verdicts = [], []
    for name, value in metrics.items():
        verdict, level = reached(name, metrics), MARKS[name].level(metrics) if name in MARKS else None
        if verdict is not None and level is not None:
            verdicts.append(verdict)
            word = '<td class="word reached">reached</td>' if verdict else '<td class="word missed">not reached</td>'
            mark = f"{MARKS[name]}" + (f" = {level:.3f}" if MARKS[name].of else "")
            rows.append(f'<tr><td>{escape(name)}</td><td>{value:.3f}</td><td class="word">{escape(mark)}</td>{word}</tr>')
    if not rows:
        return []
    head = "<tr><th>figure</th><th>value</th><th>mark</th><th></th></tr>"
    return [f"<h2>{sum(verdicts)} of {len(verdicts)} marks reached</h2>", f'<div class="wide"><table>{head}{"".join(rows)}</table></div>']


def _protocols(findings: Findings) -> Iterable[str]:
    metrics, sets = findings.metrics, findings.sets
    for protocol, title in PROTOCOLS.items():
        columns = report.columns_in(metrics, protocol)
        if not columns:
            continue
        yield f"<h2>{escape(title)}</h2>"
        yield "<p>" + "<br>".join(f"{plots.key([name])} {escape(MEANINGS[name])}" for name in SYSTEMS) + "</p>"
        names = "".join(f"<th>{escape(column)} {ARROWS[report.COLUMNS[column][2]]}</th>" for column in columns)
        rows = [_row(metrics, protocol, name, system, columns) for name in sets for system in SYSTEMS]
        yield f'<div class="wide"><table><tr><th>set</th><th></th>{names}</tr>{"".join(rows)}</table></div>'
        yield "<h3>The same on its scale</h3>"
        head = "".join(f"<th>{escape(name)}</th>" for name in sets)
        rows = [_scale_row(metrics, protocol, column, sets) for column in columns]
        yield f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
        words = "Right is better. Each line goes from the worst of the four to the best, or to the value that is best; a bar is the mark."
        yield f'<p class="quiet">{words}</p>'


def _between(findings: Findings) -> Iterable[str]:
    """Where the bundle does worst and where best; folders may be groups of people."""
    gaps = report.gaps(findings.metrics, findings.sets)
    if gaps:
        yield "<h2>Between the sets</h2>"
        head = "<tr><th>protocol</th><th></th><th>worst</th><th>best</th></tr>"
        rows = []
        for protocol, column, *ends in gaps:
            cells = "".join(f"<td>{value:.{report.COLUMNS[column][1]}f} {escape(name)}</td>" for name, value in ends)
            rows.append(f'<tr><td>{protocol}</td><td class="word">{escape(column)}</td>{cells}</tr>')
        yield f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _row(metrics: dict[str, float], protocol: str, set_name: str, system: str, columns: list[str]) -> str:
    cells = []
    for metric, decimals, _ in (report.COLUMNS[column] for column in columns):
        value = report.figure(metrics, system, protocol, metric, set_name)
        cells.append("<td>–</td>" if value is None else f"<td>{value:.{decimals}f}</td>")
    label = f'<td class="word">{plots.key([system])}</td>'
    return f'<tr class="{system}"><td>{escape(set_name)}</td>{label}{"".join(cells)}</tr>'


def _scale_row(metrics: dict[str, float], protocol: str, column: str, sets: list[str]) -> str:
    metric, _, better = report.COLUMNS[column]
    cells = []
    for name in sets:
        found = {system: report.figure(metrics, system, protocol, metric, name) for system in SYSTEMS}
        values = {system: value for system, value in found.items() if value is not None}
        mark = MARKS.get(f"speech.{protocol}.{metric}.{name}")
        cells.append(f"<td>{plots.scale(values, better, mark.level(metrics) if mark else None) if values else '–'}</td>")
    return f"<tr><td>{escape(column)} {ARROWS[better]}</td>{''.join(cells)}</tr>"


def _parts(findings: Findings) -> Iterable[str]:
    """What the two protocols do not have, a column for each set; then what belongs to no set."""
    shown = {f"{system.replace('ours', 'speech')}.{protocol}." for system in SYSTEMS for protocol in PROTOCOLS}
    rest = {name: value for name, value in findings.metrics.items() if not name.startswith(tuple(shown))}
    by_figure: dict[str, dict[str, float]] = {}
    for name, value in rest.items():
        end = max((set_name for set_name in findings.sets if name.endswith(f".{set_name}")), key=len, default="")
        by_figure.setdefault(name.removesuffix(f".{end}"), {})[end] = value
    columns = [name for name in (*findings.sets, "") if any(name in values for values in by_figure.values())]
    if columns:
        yield "<h2>The other parts</h2>"
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        cells = [[f"<td>{values[name]:.3f}</td>" if name in values else "<td></td>" for name in columns] for values in by_figure.values()]
        rows = "".join(f"<tr><td>{escape(name)}</td>{''.join(row)}</tr>" for name, row in zip(by_figure, cells))
        yield f'<div class="wide"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _clips(scenes: list[Scene]) -> str:
    """A line for each clip of a set."""
    names = [f"ours.{protocol}.{metric}" for protocol in PROTOCOLS for metric, _, _ in report.COLUMNS.values()]
    names = [name for name in (*names, "silence.zeros.share") if any(name in scene.figures for scene in scenes)]
    head = "".join(f"<th>{escape(name.removeprefix('ours.'))}</th>" for name in names)
    rows = [[f"<td>{scene.figures[name]:.3f}</td>" if name in scene.figures else "<td></td>" for name in names] for scene in scenes]
    lines = "".join(f"<tr><td>{escape(scene.name)}</td>{''.join(row)}</tr>" for scene, row in zip(scenes, rows))
    return f'<details><summary>each clip</summary><div class="wide"><table><tr><th></th>{head}</tr>{lines}</table></div></details>'


def _scenes(findings: Findings) -> Iterable[str]:
    if not any(findings.scenes.values()):
        return
    yield "<h2>Clips</h2>"
    yield "<p>Inner-lip opening over time, and the mouth at eight moments.</p>"
    yield f"<p>{plots.key(['speech', 'result', 'source', 'frozen'])}</p>"
    for name, scenes in findings.scenes.items():
        yield f"<h3>{escape(name)}</h3>{_clips(scenes)}"
        for scene in scenes[:SHOWN]:
            yield f"<h4>{escape(scene.name)}</h4>"
            plotted = {protocol: plots.tracks(lines) for protocol, lines in scene.tracks.items()}
            figures = [f"<figure>{plot}<figcaption>{escape(protocol)}</figcaption></figure>" for protocol, plot in plotted.items()]
            yield f'<div class="pair">{"".join(figures)}</div>'
            yield _picture(findings.pages[f"speech.{scene.name}"])


def _pages(pages: dict[str, Path]) -> Iterable[str]:
    others = {title: path for title, path in pages.items() if not title.startswith("speech.")}
    if others:
        yield "<h2>Contact sheets</h2>"
    for title, path in others.items():
        yield f"<details><summary>{escape(title)}</summary>{_picture(path)}</details>"


def _left_out(left_out: dict[str, str]) -> list[str]:
    rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in left_out.items())
    return ["<h2>Left out</h2>", f"<ul>{rows}</ul>"] if rows else []


def _picture(path: Path) -> str:
    """The picture as part of the page, as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return f'<img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'
