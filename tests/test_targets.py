"""The table of devices: what stands in it is consistent, what is wrong with it is one sentence, and the document is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.models import presets
from flashlips_edge.models.presets import load_preset
from kernels.chips import CHIPS, TABLES
from kernels.table import find_target, names, read_target
from quantize import targets as quantised
from targets.__main__ import document

ALL = [find_target(name) for name in names()]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ENTRIES = [[key] for key in yaml.safe_load((TABLES / "rtx.yaml").read_text())]
ENTRIES += [["chip", key] for key in yaml.safe_load((TABLES / "rtx.yaml").read_text())["chip"]]
ENTRIES += [["precision", "formats"], ["precision", "graphs"], ["limits", "batch"], ["limits", "mouth_db"], ["chip", "sm", "warps"]]


def test_the_devices_of_the_design_are_there() -> None:
    assert {"cpu", "orin", "orin-nano", "datacentre", "ada", "rtx", "thor"} <= set(names())
    assert {target.name: target.chip for target in ALL if target.chip} == CHIPS


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_a_table_says_what_holds_everywhere(target: Any) -> None:
    load_preset(target.preset)
    assert all(system.tensorrt and system.cuda for system in target.systems)
    assert target.systems or target.engine == "onnxruntime"
    if target.chip is None:
        return
    assert target.chip.source
    same = [chip for chip in CHIPS.values() if chip.capability == target.chip.capability]
    assert all(chip.limits == target.chip.limits and chip.fp8 == target.chip.fp8 for chip in same)
    if target.chip.capability == 87:
        assert "fp8" not in target.precision.formats


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_quantisation_takes_it_from_the_table(target: Any) -> None:
    wanted, form = quantised.find(target.name, None)
    assert form == target.precision.formats[0] and wanted.fused == (target.chip is None)
    assert all(entry == "low" for name, entry in target.precision.graphs.items() if name in wanted.graphs)
    with pytest.raises(UserError, match=f"--format int2: target {target.name} .* does not compute in it"):
        quantised.find(target.name, "int2")


def test_the_document_is_the_table_s(repo: Path) -> None:
    assert (repo / "docs" / "targets.md").read_text(encoding="utf-8") == document()


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--target 'orin_nano' is not one of ada, .*; did you mean orin-nano\?"):
        find_target("orin_nano")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": "tensorflow"}, "engine 'tensorflow' is not one of onnxruntime, tensorrt, tensorrt_rtx"),
        ({"presset": "nano"}, "there is no entry 'presset'; did you mean preset?"),
        (
            {"limits": {"batch": 0, "mouth_db": 40, "golden_error": 0.05, "fallback_share": 0.05, "workspace_mb": 0}},
            "batch 0 is out of range",
        ),
        ({"precision": {"formats": ["int4"], "rest": "fp16", "graphs": {}}}, "precision.formats takes int8 and fp8, not ['int4']"),
        ({"opset": "20"}, "opset must be a whole number, not '20'"),
        ({"chip": None}, "engine tensorrt_rtx needs the entry chip"),
        ({"builds_for": []}, "builds_for is for the engine tensorrt_rtx"),
        ({"device": ["a"]}, "device must be a text, not ['a']"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_entry_is_one_sentence(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "rtx.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((TABLES / "rtx.yaml").read_text()) | change))
    with pytest.raises(UserError) as error:
        read_target(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value) and "\n" not in str(error.value)


def test_fp8_where_the_chip_has_none_is_refused(tmp_path: Path) -> None:
    raw = yaml.safe_load((TABLES / "orin.yaml").read_text())
    raw["precision"]["formats"] = ["fp8"]
    (tmp_path / "orin.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="precision.formats names fp8, and sm_87 does not compute in it"):
        read_target(tmp_path / "orin.yaml")


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    raw = yaml.safe_load((TABLES / "orin.yaml").read_text())
    del raw["chip"]["ptx"]
    (tmp_path / "orin.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="chip: the entry ptx is missing"):
        read_target(tmp_path / "orin.yaml")


@given(place=st.sampled_from(ENTRIES), value=JSON)
def test_no_value_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, place: list[str], value: Any) -> None:
    raw = inner = yaml.safe_load((TABLES / "rtx.yaml").read_text())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path_factory.getbasetemp() / "rtx.yaml"
    path.write_text(yaml.safe_dump(raw))
    try:
        assert read_target(path).name == "rtx"
    except UserError as error:
        assert "\n" not in str(error)


def test_tables_that_hold_each_other_many_times_over_are_one_sentence(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (tmp_path / "rtx.yaml").write_text((TABLES / "rtx.yaml").read_text().replace("device: GeForce RTX 5090", "device: *a19"))
    text = (tmp_path / "rtx.yaml").read_text()
    (tmp_path / "rtx.yaml").write_text("\n".join(lines) + "\n" + text)
    with pytest.raises(UserError, match="there is no entry 'a0'"):
        read_target(tmp_path / "rtx.yaml")
    nested = "\n".join(["device:", *(f"  {line}" for line in lines)])
    (tmp_path / "rtx.yaml").write_text((TABLES / "rtx.yaml").read_text().replace("device: GeForce RTX 5090", nested))
    with pytest.raises(UserError, match="device must be a text") as error:
        read_target(tmp_path / "rtx.yaml")
    assert len(str(error.value)) < 300


PRESETS = st.fixed_dictionaries({}, optional=dict.fromkeys(("crop_size", *presets.SECTIONS), JSON))


@given(
    content=st.binary(max_size=64)
    | JSON.map(lambda value: yaml.safe_dump(value).encode())
    | PRESETS.map(lambda v: yaml.safe_dump(v).encode())
)
def test_no_preset_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "presets"
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "FOLDER", folder)
        try:
            read = load_preset("mine")
            assert read["crop_size"] is not None and all(isinstance(read[section], dict) for section in presets.SECTIONS)
        except UserError as error:
            assert "\n" not in str(error)


@given(name=st.text(max_size=20) | st.sampled_from(["../nano", "/etc/passwd", "nano.yaml", "./nano", "na\0no"]))
def test_a_preset_or_a_target_is_one_of_those_there_are_and_no_path(name: str) -> None:
    assume(name not in ("nano", "edge", "paper") and name not in names())
    for find in (load_preset, find_target):
        with pytest.raises(UserError, match="is not one of"):
            find(name)


@given(data=st.binary(max_size=64))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_target(path)
    assert "\n" not in str(error.value)
