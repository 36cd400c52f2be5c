"""The bench without a GPU: cases, the check before the clock, the table, the marks and the roofline. No time is asserted."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.models.presets import load_preset
from kernels import roofline
from kernels.bench.cases import Case, layer_cases
from kernels.bench.measure import WrongError, check
from kernels.bench.table import KEY, MEASURED, Row, marks, merge, read, render
from kernels.chips import CHIPS
from kernels.specialisation import Specialisation
from kernels.testing import DEVICE, run_uninterpreted


@pytest.fixture(autouse=True)
def poison() -> None:
    """Networks are made on the meta device here, which poisoned outputs do not know."""


def row(**changes: str) -> Row:
    return {**dict.fromkeys(KEY, "x"), **dict.fromkeys(MEASURED, ""), **changes}


def test_layers_of_a_preset_are_checked_against_float64() -> None:
    with torch.no_grad():
        for each in islice(layer_cases(load_preset("nano"), 1, DEVICE, torch.float32), 2):
            assert each.bytes > 0
            check(each, torch.float32)


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_a_wrong_answer_is_named_and_nothing_is_timed(wrong: float) -> None:
    broken = Case("toy", "8", lambda: torch.ones(8), lambda: torch.ones(8) * wrong, lambda: torch.ones(8).double(), 0, 64)
    with pytest.raises(WrongError, match="toy, 8: .* from float64's answer"):
        check(broken, torch.float32)


def test_pictures_in_whole_levels_may_be_one_off_and_no_more() -> None:
    frame = torch.arange(12, dtype=torch.uint8)
    good = Case("toy", "12", None, lambda: frame + 1, lambda: frame, 0, 24, step=1)
    check(good, torch.float32)
    with pytest.raises(WrongError):
        check(replace(good, fused=lambda: frame + 2), torch.float32)


def test_without_a_gpu_the_sentence_names_the_rehearsal() -> None:
    if DEVICE == "cuda":
        pytest.skip("there is a GPU, and the bench would run")
    done = run_uninterpreted("-m", "kernels.bench")
    assert done.returncode == 2
    assert "there is no GPU to time kernels on; --rehearse" in done.stderr


def test_a_measurement_replaces_the_one_of_the_same_device_commit_and_case(tmp_path: Path) -> None:
    path = tmp_path / "kernels.csv"
    merge(path, [row(device="a", ours_ms="1"), row(device="b", ours_ms="2")])
    merge(path, [row(device="a", ours_ms="3"), row(device="a", commit="y", ours_ms="4")])
    assert [(r["device"], r["commit"], r["ours_ms"]) for r in read(path)] == [("a", "x", "3"), ("a", "y", "4"), ("b", "x", "2")]
    assert "-" in render(read(path)).splitlines()[1]


text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)


@given(names=st.lists(st.fixed_dictionaries(dict.fromkeys(KEY, text)), max_size=5))
def test_any_name_comes_back_out_of_the_table(names: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "kernels.csv"
    merge(path, [row(**name) for name in names])
    assert {tuple(r[k] for k in KEY) for r in read(path)} == {tuple(n[k] for k in KEY) for n in names}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"operation": "adaln", "megabytes": "40", "copy_ms": "0.86", "ours_ms": "1"}, [True]),
        ({"operation": "adaln", "megabytes": "40", "copy_ms": "0.84", "ours_ms": "1"}, [False]),
        ({"operation": "adaln", "megabytes": "31", "copy_ms": "0.1", "ours_ms": "1"}, []),
        ({"operation": "attention_block", "library_ms": "1", "ours_ms": "1"}, [True]),
        ({"operation": "attention_block", "library_ms": "1", "ours_ms": "1.1"}, [False]),
        ({"operation": "editor", "preset": "paper", "batch": "1", "compile_ms": "1.2", "ours_ms": "1"}, [True]),
        ({"operation": "editor", "preset": "edge", "batch": "1", "compile_ms": "1.0", "ours_ms": "1"}, []),
        ({"operation": "flow_integrate", "copy_ms": "1", "ours_ms": "2.1"}, [False]),
    ],
)
def test_the_marks(changes: Row, kept: list[bool]) -> None:
    assert [result for _, result in marks([row(**changes)])] == kept


def kernel(flops: int, traffic: int) -> Specialisation:
    function = SimpleNamespace(arg_names=["x"])
    return Specialisation("toy", f"toy_{flops}", function, {"x": "*fp16"}, {}, (), (1, 1, 1), 4, 3, flops, traffic)


def test_the_least_time_is_the_larger_of_the_two() -> None:
    chip = replace(CHIPS["orin"], matmul=1e12, bandwidth=1e9)
    found = roofline.totals([kernel(10**12, 1), kernel(1, 10**9)], chip)
    assert found == {"toy": (2.0, 10**12 + 1, 10**9 + 1)}


def test_only_this_chip_s_measurements_are_drawn(tmp_path: Path) -> None:
    chip, path = CHIPS["datacentre"], tmp_path / "kernels.csv"
    timed = {"preset": "edge", "batch": "1", "operation": "lips_conv", "gflop": "2", "megabytes": "4", "ours_ms": "0.1"}
    merge(path, [row(device=chip.key, **timed), row(device=CHIPS["orin"].key, **timed)])
    assert roofline.measured(chip, "edge", 1, path) == [("lips_conv", pytest.approx(500), pytest.approx(2e13))]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    roofline.draw(tmp_path / "roof.png", CHIPS["orin"], "a prediction", [kernel(10**9, 10**6), kernel(10**6, 10**6)], [("toy", 10, 1e12)])
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
