"""Every command: a wrong argument is one sentence and exit status 2, and --help is help."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
typer = pytest.importorskip("typer", reason="typer is not installed: pip install '.[build]'")

from flashlips_edge.training.command import command  # noqa: E402

COMMANDS = (
    "benchmarks.dissolves",
    "benchmarks.engines",
    "benchmarks.gpu_frame",
    "benchmarks.live",
    "benchmarks.look_ahead",
    "benchmarks.personal",
    "flashlips_edge.demo",
    "flashlips_edge.doctor",
    "flashlips_edge.engines.build",
    "flashlips_edge.evaluation",
    "flashlips_edge.models",
    "flashlips_edge.prepare",
    "flashlips_edge.run",
    "flashlips_edge.signature",
    "flashlips_edge.soak",
    "flashlips_edge.training",
    "flashlips_edge.training.prepare",
    "kernels.aot",
    "kernels.aot.on_gpu",
    "kernels.bench",
    "kernels.roofline",
    "quantize",
    "quantize.compare",
    "quantize.compare_ranges",
    "targets",
    "targets.build",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`python -m module words` in this process: exit status, standard output, standard error."""

    def run(module: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [module, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = ended.value.code or 0
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("module", COMMANDS)
def test_an_unknown_option_is_one_sentence_and_help_is_help(module: str, run: Run) -> None:
    status, out, err = run(module, "--nope")
    assert (status, out) == (2, "") and err.startswith(f"{module}: ") and err.endswith("; --help names every option\n")
    assert err.count("\n") == 1
    status, out, err = run(module, "--help")
    assert (status, err) == (0, "") and f"python -m {module}" in out


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("benchmarks.live", ["--minutes", "nan"], "--minutes nan is out of range: 0.5 or more"),
        ("benchmarks.live", ["--minutes", "-1"], "--minutes -1 is out of range: 0.5 or more"),
        ("benchmarks.live", ["--threads", "0"], "--threads 0 is out of range: 1 to 256"),
        ("benchmarks.live", ["--out", str(Path(__file__).parent)], "this is a folder; give the name of a file"),
        ("benchmarks.live", ["--bundle", "nope"], "--bundle nope: no folder with a manifest.json and none of the shipped bundles"),
        ("flashlips_edge.signature", [], "the following arguments are required: command"),
        ("flashlips_edge.signature", ["bogus"], "invalid choice: 'bogus'"),
        ("flashlips_edge.signature", ["keygen"], "the following arguments are required: key"),
        ("flashlips_edge.training", ["--share", "nan"], "'--share'"),
        ("flashlips_edge.training", ["--share", "2"], "'--share'"),
        ("flashlips_edge.training", ["--minutes", "nan"], "nan"),
        ("flashlips_edge.training", ["--batch", "1.5"], "1.5"),
        ("flashlips_edge.training", ["--backbone", "resnet"], "'resnet' is not one of 'editor', 'editor_transformer'"),
        ("flashlips_edge.training", ["--stages", "editors"], "--stages 'editors' is not one of clips"),
        ("flashlips_edge.training.prepare", [], "Missing argument"),
        ("flashlips_edge.training.prepare", ["nowhere"], "nowhere: there is no such video"),
        ("targets.build", [], "the following arguments are required: target"),
    ],
)
def test_a_wrong_argument_is_one_sentence(module: str, words: list[str], says: str, run: Run) -> None:
    status, out, err = run(module, *words)
    assert (status, out) == (2, "") and err.startswith(f"{module}: ") and says in err and err.count("\n") == 1


@pytest.mark.parametrize("range_", [{}, {"min": 0}])
def test_no_training_command_takes_nan_for_a_number(
    range_: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(share: float = typer.Option(0.0, **range_)) -> None:
        pytest.fail("it began")

    monkeypatch.setattr(sys, "argv", ["it", "--share", "nan"])
    with pytest.raises(SystemExit) as ended:
        command(main)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("test_arguments: Invalid value for '--share': ") and "nan" in err


def test_a_training_command_ends_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    def done() -> None: ...

    monkeypatch.setattr(sys, "argv", ["it"])
    for main, status in ((done, None), (stopped, 130)):
        with pytest.raises(SystemExit) as ended:
            command(main)
        assert ended.value.code == status
