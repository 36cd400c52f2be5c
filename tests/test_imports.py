"""Imports go downwards only, as the table of who may import whom has it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "flashlips_edge"
FLOOR = {"arguments", "errors", "files", "quiet", "uncaught"}
PARTS = {"bundle", "engines", "face", "media", "pump", "speech"}
# What each part of the package may import besides itself and the floor. Any other module, session.py among them, is the session's:
# it joins the parts, and nothing of it reaches up.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "files": set(),
    "quiet": set(),
    "uncaught": set(),
    "onnx_shapes": set(),
    "bundle_shapes": {"onnx_shapes"},
    **{part: set() for part in PARTS},
    "bundle": {"bundle_shapes"},
    "engines": {"bundle"},
    "media": {"pump"},
    "models": set(),
    "talking": PARTS,
    "training": PARTS | {"models", "talking", "session"},
    "evaluation": PARTS | {"models", "talking", "session"},
    "run": PARTS | {"talking", "session"},
    "serve": PARTS | {"talking", "session"},
    "demo": PARTS | {"talking", "session", "run"},
    "session": PARTS | {"talking"},
}
ABOVE = {"kernels", "quantize", "targets", "tests", "benchmarks"}


def read_imports(root: Path) -> dict[str, set[str]]:
    """Every module of the package and the modules of the package, or the folders above it, that it imports anywhere in its code."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    names = {file: ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files}
    known = set(names.values())
    imports = {}
    for file, name in names.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
                base = [*package[: len(package) - node.level + 1]] if node.level else []
                base += node.module.split(".") if node.module else []
                for alias in node.names:
                    longer = ".".join([*base, alias.name])
                    found.add(longer if longer in known else ".".join(base))
        imports[name] = {target for target in found if target.split(".")[0] in ABOVE | {PACKAGE}} - {name}
    return imports


def part_of(module: str) -> str:
    """The row of the table that a module of the package belongs to."""
    top = module.split(".")[1] if "." in module else ""
    return top if top in MAY_IMPORT else "session"


@pytest.fixture(scope="module")
def imports(repo: Path) -> dict[str, set[str]]:
    return read_imports(repo)


def test_each_part_imports_only_what_lies_below_it(imports: dict[str, set[str]]) -> None:
    wrong = []
    for module, targets in imports.items():
        part = part_of(module)
        for target in targets - {PACKAGE}:
            if target.split(".")[0] in ABOVE or part_of(target) not in MAY_IMPORT[part] | FLOOR | {part}:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_module_imports_itself_by_a_detour(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_the_check_sees_an_import_upwards(tmp_path: Path) -> None:
    folder = tmp_path / PACKAGE / "face"
    folder.mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "face/__init__.py": "from .crop import cut",
        "face/crop.py": "def cut():\n    from ..session import Session\n    import kernels.norm",
        "session.py": "from flashlips_edge import face",
    }.items():
        (tmp_path / PACKAGE / file).write_text(text)
    imports = read_imports(tmp_path)
    assert imports[f"{PACKAGE}.face"] == {f"{PACKAGE}.face.crop"}
    assert imports[f"{PACKAGE}.face.crop"] == {f"{PACKAGE}.session", "kernels.norm"}
    assert imports[f"{PACKAGE}.session"] == {f"{PACKAGE}.face"}
    with pytest.raises(CycleError):
        TopologicalSorter(imports).prepare()
