"""Ahead of time, without a GPU: what is compiled, what is refused, and what the launcher then reads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.engines.cubin import read_manifest
from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from kernels.aot.__main__ import main
from kernels.aot.compile import Compiled
from kernels.aot.folder import check, write
from kernels.chips import CHIPS, LIMITS, find_chip, occupancy
from kernels.flow_step.kernel import flow_step
from kernels.group_norm_silu.kernel import group_norm_silu
from kernels.launches import record
from kernels.precision import INTERPRETED
from kernels.specialisation import Specialisation, collect
from kernels.testing import run_uninterpreted

TOY = """
import sys
from dataclasses import replace
import triton, triton.language as tl
from kernels.aot.compile import assemble, compile_kernel
from kernels.aot.folder import check, write
from kernels.chips import CHIPS
from kernels.specialisation import Specialisation
from pathlib import Path

@triton.jit
def scale(x, y, factor, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < count).to(tl.float32)
    tl.store(y + at, ((value - tl.sum(value)) * factor).to(tl.float16), at < count)

def specialisation(block, warps):
    types = {"x": "*fp16", "y": "*fp16", "factor": "fp32", "count": "i32"}
    return Specialisation("toy", f"scale_{block}", scale, types, {"BLOCK": block}, ("x", "y"), (4, 1, 1), warps, 3, 1, 1)
"""


@pytest.fixture(autouse=True)
def poison() -> None:
    """Networks are made on the meta device here, which poisoned outputs do not know."""


def toy(tmp_path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run lines after a toy kernel's definition, where Triton compiles."""
    script = tmp_path / "toy.py"
    script.write_text(TOY + "\n".join(lines))
    return run_uninterpreted("-c", f"import runpy, sys; sys.path.insert(0, '.'); runpy.run_path({str(script)!r})")


def made(**changes: Any) -> Compiled:
    """A compiled kernel that nothing compiled."""
    shape = {"grid": (4, 1, 1), "cooperative": False, **{k: changes.pop(k) for k in ("grid", "cooperative") if k in changes}}
    function = SimpleNamespace(arg_names=["x", "BLOCK"])
    specialisation = Specialisation(
        "toy", "toy_4", function, {"x": "*fp16"}, {"BLOCK": 64}, ("x",), num_warps=4, num_stages=3, flops=8, bytes=9, **shape
    )
    fields = {"warps": 4, "shared": 0, "registers": 32, "spilled": 0, "stack": 0, "hidden": 2, **changes}
    return Compiled(specialisation, b"cubin", "ptx", "toy", **fields)


def test_a_preset_becomes_a_folder_that_the_launcher_reads(tmp_path: Path) -> None:
    some = ["adaln", "flow_step", "lips_conv"]
    done = run_uninterpreted("-m", "kernels.aot", "--target", "orin", "--preset", "nano", "--operation", *some, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path)
    assert manifest["capability"] == 87
    wanted = [each.name for each in collect(load_preset("nano"), 1, 87) if each.operation in some]
    assert [entry["name"] for entry in manifest["kernels"]] == wanted
    for entry in manifest["kernels"]:
        cubin, ptx = (tmp_path / entry["cubin"]).read_bytes(), (tmp_path / entry["ptx"]).read_text()
        assert cubin.startswith(b"\x7fELF")
        assert hashlib.sha256(cubin).hexdigest() == entry["sha256"]
        assert f".visible .entry {entry['entry']}(" in ptx
        assert ".target sm_87" in ptx
        assert ".version 8.3" in ptx  # JetPack 6.2's driver reads up to 8.5
        assert entry["spilled"] == 0
        assert entry["shared"] <= LIMITS[87].shared_per_block
        assert entry["occupancy"]["blocks"] >= 1
    assert str(len(manifest["kernels"])) in done.stdout.splitlines()[-1]


def test_every_chip_gets_its_own_cubin_and_the_same_one_again_and_a_kernel_that_spills_is_refused(tmp_path: Path) -> None:
    done = toy(
        tmp_path,
        "for chip in CHIPS.values():",
        "    made = compile_kernel(specialisation(512, 4), chip)",
        "    assert made.cubin == assemble(made.ptx, chip.capability)[0]",
        "    assert made.spilled == 0 and made.hidden >= 1, made",
        "    assert f'.target sm_{chip.capability}' in made.ptx",
        "    assert b'toy.py' not in made.cubin and 'toy.py' not in made.ptx",
        f"    write(Path({str(tmp_path)!r}) / chip.name, [made], chip, 'nano', [1])",
        "check([compile_kernel(specialisation(8192, 1), chip)], chip)",
    )
    assert "UserError: --target rtx: scale_8192 spills" in done.stderr
    digests = {name: read_manifest(tmp_path / name)["kernels"][0]["sha256"] for name in CHIPS}
    assert len(set(digests.values())) == len(LIMITS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "orinn"], "--target 'orinn' is not one of orin, .*; did you mean orin"),
        (["--target", "orin", "--preset", "nanno"], "did you mean nano?"),
        (["--target", "orin", "--batch", "0"], "--batch 0: a batch is 1 frame or more"),
        (["--target", "orin", "--operation", "adalm"], "--operation 'adalm' is not one of adaln, "),
    ],
    ids=["target", "preset", "batch", "operation"],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kernels.aot", *arguments, "--out", str(tmp_path / "out")])
    monkeypatch.setattr("kernels.aot.__main__.INTERPRETED", SimpleNamespace(value=False))
    with pytest.raises(UserError, match=sentence):
        main()
    assert not (tmp_path / "out").exists()


def test_the_interpreter_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not INTERPRETED.value:
        pytest.skip("there is a GPU, and kernels are not interpreted")
    monkeypatch.setattr("sys.argv", ["kernels.aot", "--target", "orin", "--preset", "nano", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="TRITON_INTERPRET is set, and interpreted kernels cannot be compiled: unset it"):
        main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spilled": 8}, "toy_4 spills 8 bytes of registers"),
        ({"shared": 100 << 10}, "toy_4 needs 102400 bytes of shared memory of 101376"),
        ({"registers": 255, "warps": 16}, "toy_4 needs 130560 registers of 65536"),
        ({"grid": (171, 12, 1), "cooperative": True}, "toy_4 waits for 2052 programs of which 2040 run at once"),
    ],
    ids=["spills", "shared memory", "registers", "cooperative"],
)
def test_what_a_chip_cannot_run_well_is_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=f"--target rtx: {sentence}; choose smaller blocks"):
        check([made(), made(**changes)], find_chip("rtx"))


def test_an_interrupted_build_leaves_the_old_kernels_whole(tmp_path: Path) -> None:
    chip = find_chip("orin")
    old = write(tmp_path, [made()], chip, "nano", [1])
    newer = Compiled(**{**vars(made()), "cubin": b"newer"})
    with mock.patch("kernels.aot.folder.json.dumps", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        write(tmp_path, [newer], chip, "nano", [1])
    assert read_manifest(tmp_path) == json.loads(json.dumps(old))
    assert (tmp_path / old["kernels"][0]["cubin"]).read_bytes() == b"cubin"
    new = write(tmp_path, [newer], chip, "nano", [1])
    assert {path.name for path in tmp_path.iterdir()} == {new["kernels"][0]["cubin"], new["kernels"][0]["ptx"], "manifest.json"}


def test_occupancy_is_the_calculators() -> None:
    hopper, orin = LIMITS[90], LIMITS[87]
    assert (occupancy(hopper, 64, 0, 8).blocks, occupancy(hopper, 64, 0, 8).limited_by) == (4, "registers")
    assert (occupancy(hopper, 32, 56 << 10, 4).blocks, occupancy(hopper, 32, 56 << 10, 4).limited_by) == (4, "shared memory")
    assert occupancy(hopper, 32, 0, 4).share == 1
    assert (occupancy(orin, 16, 0, 1).blocks, occupancy(orin, 16, 0, 1).limited_by) == (16, "blocks")


@given(
    capability=st.sampled_from(sorted(LIMITS)),
    registers=st.integers(1, 255),
    shared=st.integers(0, 99 << 10),
    warps=st.sampled_from([1, 2, 4, 8]),
)
def test_what_is_resident_fits_on_the_processor(capability: int, registers: int, shared: int, warps: int) -> None:
    limits = LIMITS[capability]
    fits = occupancy(limits, registers, shared, warps)
    assert 0 < fits.share <= 1
    assert fits.blocks * registers * 32 * warps <= 65536
    assert fits.blocks * shared <= limits.shared
    assert occupancy(limits, registers + 1, shared + 1, warps).blocks <= fits.blocks


def test_what_would_be_launched_is_what_is_launched() -> None:
    x, weight, bias = torch.empty(2, 8, 3, 5, device="meta", dtype=torch.float16), *torch.empty(2, 8, device="meta", dtype=torch.float16)
    (launch,) = record(lambda: group_norm_silu(x, weight, bias, 4))
    made = launch.specialise("group_norm_silu", "small", 1)
    assert made.grid == (8, 1, 1)  # a program for each group of each picture
    assert made.types["y"] == "*fp16"
    assert made.constants["hw"] == 15
    assert "y" in made.aligned
    assert "bias" in made.aligned  # it begins 16 bytes into its storage
    assert made.bytes == 2 * (2 * x.numel() + 16) + 4 * 16  # x, y, weight and bias; a mean and a deviation of each group


def test_numbers_are_compiled_in_unless_they_are_named() -> None:
    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=torch.float16)

    def step() -> None:
        flow_step(empty(1, 5, 12), empty(2, 5, 12), 0.1, 2.0, empty(64, 12), empty(64), empty(2, 3, 64), empty(1, 8, 64))

    (launch,) = record(step)
    fixed, free = launch.specialise("flow_step", "fixed", 1), launch.specialise("flow_step", "free", 1, numbers={"size": "fp32"})
    assert fixed.constants["size"] == 0.1
    assert all(kind.startswith("*") for kind in fixed.types.values())
    assert "size" not in free.constants
    assert free.types["size"] == "fp32"


@pytest.mark.parametrize(("preset", "batch"), [("edge", 1), ("paper", 8)])
def test_every_preset_has_kernels_with_names_of_their_own(preset: str, batch: int) -> None:
    for capability in (87, 90):
        found = collect(load_preset(preset), batch, capability)
        assert len({each.name for each in found}) == len(found) > 0
        assert all(each.flops > 0 and each.bytes > 0 and min(each.grid) > 0 for each in found)


def test_a_specialisation_that_forgets_an_argument_is_refused() -> None:
    function = SimpleNamespace(arg_names=["x", "y"])
    with pytest.raises(ValueError, match=r"types and constants name \['x'\], the kernel takes \['x', 'y'\]"):
        Specialisation("toy", "toy", function, {"x": "*fp16"}, {}, (), (1, 1, 1), 4, 3, 1, 1)
    with pytest.raises(ValueError, match="'toy/../x' has other characters"):
        Specialisation("toy", "toy/../x", function, {"x": "*fp16", "y": "i32"}, {}, (), (1, 1, 1), 4, 3, 1, 1)
