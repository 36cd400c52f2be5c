"""What must hold for the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LARGE_BYTES = 20_000_000
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".cfg", ""}
NEVER = {
    "a home folder": r"/(home|Users)/\w|/root/",
    "a machine's own folder": r"(?<![\w./~-])/(work|farm|tmp|opt/wheels|mnt|srv)/\w",
    "a registry's host": r"--(extra-)?index-url|--find-links|pythonhosted|pypi\.org/simple|download\.pytorch",
    "something left for later": r"\b(TO" + "DO|FIX" + r"ME|XX" + "X)\\b|NotImplemented" + "Error",
}


@pytest.fixture(scope="module")
def files(repo: Path) -> list[Path]:
    """The files of the repository: what git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=repo, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of the repository's files")
    return [path for name in listed.stdout.split("\0") if name and (path := repo / name).is_file()]


@pytest.mark.parametrize("what", NEVER)
def test_no_file_holds(what: str, files: list[Path], repo: Path) -> None:
    found = [
        f"{path.relative_to(repo)}:{number}: {line.strip()[:120]}"
        for path in files
        if path.suffix in TEXT and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(NEVER[what], line)
    ]
    assert not found


def test_no_weights_are_pickled(files: list[Path], repo: Path) -> None:
    by_name = [path for path in files if path.suffix in {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".bin"}]
    by_code = [path for path in files if path.suffix == ".py" and re.search(r"^\s*(import|from) pickle\b", path.read_text(), re.M)]
    assert not [str(path.relative_to(repo)) for path in by_name + by_code]


def test_no_file_is_large(files: list[Path], repo: Path) -> None:
    assert not [f"{path.relative_to(repo)}: {path.stat().st_size} bytes" for path in files if path.stat().st_size > LARGE_BYTES]


def test_the_documents_name_only_what_is_there(repo: Path) -> None:
    makefile = (repo / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (repo / document).read_text(encoding="utf-8")
        assert set(re.findall(r"^make ([a-z-]+)", "\n".join(_code(text)), re.M)) <= targets
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (repo / link).exists(), f"{document} links to {link}"
        for path in re.findall(r"`((?:flashlips_edge|tests|benchmarks)/[\w./]*)`", text):
            assert (repo / path).exists(), f"{document} names {path}"
        assert not _missing(text, repo)
    assert not _missing(makefile, repo)


def test_every_option_of_the_readme_is_one_of_run(repo: Path) -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "flashlips_edge.run", "--help"], cwd=repo, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for command in re.findall(r"python -m flashlips_edge\.run (.*)", (repo / "README.md").read_text(encoding="utf-8")):
        for option in re.findall(r"--[a-z-]+", command):
            assert option in help_text


def test_the_newest_changes_are_this_version_s(repo: Path) -> None:
    versions = re.findall(r'^version = "(.+)"$', (repo / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    changes = re.findall(r"^## (\S+)$", (repo / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions == changes[:1]


def test_the_licence_is_the_apache_licence(repo: Path) -> None:
    text = (repo / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def _code(markdown: str) -> list[str]:
    """The indented lines and the inline code of a document."""
    return re.findall(r"^ {4,}(.*)$", markdown, re.M) + re.findall(r"`([^`\n]+)`", markdown)


def _missing(text: str, repo: Path) -> list[str]:
    """The modules that a text runs with `python -m` and that are not there, or cannot be run."""
    paths = {module: repo / module.replace(".", "/") for module in re.findall(r"-m (flashlips_edge[\w.]*\w)", text)}
    return [name for name, path in paths.items() if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists()]
