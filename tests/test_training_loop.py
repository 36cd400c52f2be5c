"""Training goes on where it was killed, draws ahead without changing anything, in one process and in two."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.editor import EditorUNet  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import curves, loop, precision  # noqa: E402
from flashlips_edge.training.checkpoint import load_weights, save_weights  # noqa: E402
from flashlips_edge.training.loop import Schedule, follow, train  # noqa: E402
from flashlips_edge.training.pace import Pace, at  # noqa: E402

Terms = dict[str, torch.Tensor]


def draw(generator: np.random.Generator) -> dict[str, torch.Tensor]:
    """Noisy pictures of one grey each, and the grey."""
    grey = generator.uniform(-1, 1, (8, 1, 1, 1)).astype(np.float32)
    pictures = grey + 0.1 * generator.normal(size=(8, 3, 8, 8)).astype(np.float32)
    return {"pictures": torch.from_numpy(pictures), "grey": torch.from_numpy(grey[:, :, 0, 0])}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(8 * 36, 1))


def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> Terms:
    noisy = batch["pictures"] + 0.01 * torch.randn_like(batch["pictures"])
    return {"fit": (module(noisy) - batch["grey"]).square().mean()}


def fit(folder: Path, stop_after: int | None = None, steps: int = 40, workers: int = 0) -> Terms:
    """Learn the grey; with ``stop_after`` the run is killed after that many steps."""
    calls = 0

    def counted(module: nn.Module, batch: dict[str, torch.Tensor]) -> Terms:
        nonlocal calls
        if calls == stop_after:
            raise KeyboardInterrupt
        calls += 1
        return loss(module, batch)

    save_every_s = 0.0 if stop_after else 1e9
    schedule = Schedule(steps=steps, rate=1e-2, warm_up=5, save_every_s=save_every_s)
    train("grey", network(), draw, counted, schedule, folder, workers=workers)
    return load_file(folder / "grey.safetensors")


def same(a: Terms, b: Terms) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", stop_after=15)
    assert not same(whole, load_file(tmp_path / "killed" / "grey.safetensors"))
    assert same(whole, fit(tmp_path / "killed", workers=2)), "not even when other processes draw the batches"


@pytest.mark.parametrize(("has", "wanted"), [(False, torch.float32), (True, torch.bfloat16)])
def test_it_computes_in_what_the_processor_is_fast_in(
    tmp_path: Path, has: bool, wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: has)
    seen: set[torch.dtype] = set()

    def watched(module: nn.Module, batch: dict[str, torch.Tensor]) -> Terms:
        given = module(batch["pictures"])
        seen.add(given.dtype)
        return {"fit": (given.float() - batch["grey"]).square().mean()}

    train("grey", network(), draw, watched, Schedule(steps=3, rate=1e-3), tmp_path, workers=0)
    assert seen == {wanted}
    assert {value.dtype for value in load_file(tmp_path / "grey.safetensors").values()} == {torch.float32}
    with precision.autocast("cpu"):
        assert nn.Linear(4, 4)(torch.ones(1, 4)).dtype == wanted


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").is_file(), reason="asks Linux for an x86-64 processor's flags"
)
def test_bfloat16_is_for_a_gpu_and_a_processor_with_wide_vectors() -> None:
    assert precision.has_bfloat16("cuda")
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert precision.has_bfloat16("cpu") == ({"avx512bw", "avx512vl", "avx512dq"} <= flags)


class Clock:
    """Time that passes by a second with every look at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_minutes_in_place_of_steps_are_counted_over_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())

    def steps() -> int:
        return int(load_file(tmp_path / "grey.state.safetensors")["step"])

    with at(Pace(minutes=1.0)):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, stop_after=8, steps=2)
        assert steps() == 8, "the recipe's two steps do not end it"
        fit(tmp_path, steps=2)
        assert 15 < (whole := steps()) < 32, "a minute of looks at the clock, less those before the break"
        fit(tmp_path, steps=2)
        assert steps() == whole, "the minute is over"


def test_a_share_of_the_steps(tmp_path: Path) -> None:
    with at(Pace(share=0.25)):
        fit(tmp_path, steps=40)
    assert int(load_file(tmp_path / "grey.state.safetensors")["step"]) == 10


def test_the_loss_falls_and_its_curve_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, stop_after=102, steps=200)
    fit(tmp_path, steps=200)
    rows = curves.read(tmp_path / "grey.jsonl")
    assert [row["step"] for row in rows] == [100, 200], "each step once, although the run was killed between"
    assert rows[1]["fit"] < 0.2 * rows[0]["fit"]
    assert (tmp_path / "grey.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard" / "grey").glob("events*"))


def test_half_a_line_that_a_killed_run_left_is_forgotten(tmp_path: Path) -> None:
    fit(tmp_path, steps=100)
    with (tmp_path / "grey.jsonl").open("a") as file:
        file.write('{"step": 200, "fi')
    fit(tmp_path, steps=200)
    assert [row["step"] for row in curves.read(tmp_path / "grey.jsonl")] == [100, 200]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file/run: Not a directory; choose a folder that can be written"):
        fit(tmp_path / "file" / "run", steps=1)


def test_the_check_sees_the_running_average(tmp_path: Path) -> None:
    seen = []

    def check(average: nn.Module) -> dict[str, float]:
        seen.append(not average.training)
        return {"weight": float(average[0].weight.sum())}  # type: ignore[index]

    schedule = Schedule(steps=5, rate=1e-2, save_every_s=0.0)
    average = train("grey", network(), draw, loss, schedule, tmp_path, check=check, workers=0)
    rows = curves.read(tmp_path / "grey.jsonl")
    assert seen == [True] * 5
    assert rows[-1]["weight"] == pytest.approx(float(average[0].weight.sum()), abs=1e-6)  # type: ignore[index]


def test_the_average_by_hand() -> None:
    slow, fast = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(slow.weight, 1.0)
    nn.init.constant_(fast.weight, 3.0)
    follow(slow, fast, 0.75)
    assert slow.weight.item() == pytest.approx(1.5)


def test_a_large_gradient_is_clipped(tmp_path: Path) -> None:
    norms = []

    class Watched(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.weight.grad is not None:
                norms.append(float(torch.cat([p.grad.flatten() for p in self.parameters() if p.grad is not None]).norm()))
            return super().forward(x)

    def steep(module: nn.Module, batch: torch.Tensor) -> Terms:
        return {"fit": 1e4 * module(batch).square().mean()}

    schedule = Schedule(steps=4, rate=1e-3, clip=0.5)
    train("steep", Watched(1, 1), lambda generator: torch.ones(4, 1), steep, schedule, tmp_path, workers=0)
    assert norms == pytest.approx([0.5] * 3, rel=1e-3)


def test_a_loss_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    def broken(module: nn.Module, batch: dict[str, torch.Tensor]) -> Terms:
        return {"fit": loss(module, batch)["fit"] * float("nan")}

    with pytest.raises(UserError, match=r"grey: the loss is not finite at step 3; .* smaller rate than 0\.01"):
        train("grey", network(), draw, broken, Schedule(steps=3, rate=1e-2), tmp_path, workers=0)
    assert not (tmp_path / "grey.safetensors").exists()


def test_weights_that_are_missing_or_another_network_s_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.safetensors: no such file; run the training stage"):
        load_weights(tmp_path / "nowhere.safetensors", network())
    fit(tmp_path, steps=1)
    with pytest.raises(UserError, match=r"grey\.safetensors: weights of another network or preset, 0\.bias does not fit"):
        load_weights(tmp_path / "grey.safetensors", nn.Linear(3, 1))
    with pytest.raises(UserError, match=r"grey\.state\.safetensors: weights of another network"):
        train("grey", nn.Linear(3, 1), draw, loss, Schedule(steps=2, rate=1e-2), tmp_path, workers=0)


def test_weights_from_before_the_editor_could_copy_do_what_they_did(tmp_path: Path) -> None:
    sizes = load_preset("nano")["editor"]
    before, after = EditorUNet(**{**sizes, "copies": False}), EditorUNet(**sizes)
    nn.init.normal_(before.residual.weight)
    save_weights(tmp_path / "editor.safetensors", before)
    load_weights(tmp_path / "editor.safetensors", after)
    inputs = torch.randn(1, 16, 20, 20), torch.randn(1, 64, 20, 20), torch.randn(1, 12)
    assert torch.equal(before(*inputs), after(*inputs))
    with pytest.raises(UserError, match=r"editor\.safetensors: weights of another network"):
        load_weights(tmp_path / "editor.safetensors", nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("step"), "no state of a training, it has no step to go on from"),
        (lambda state: state.update(step=torch.zeros(2)), "no state of a training, it has no step to go on from"),
        (lambda state: state.update({"optimiser.0.exp_avg": torch.zeros(5)}), r"optimiser\.0\.exp_avg does not fit"),
        (lambda state: state.update({"optimiser.99.exp_avg": torch.zeros(5)}), r"optimiser\.99\.exp_avg does not fit"),
    ],
)
def test_a_state_that_cannot_be_gone_on_from_is_one_sentence(change: Callable[[Terms], object], says: str, tmp_path: Path) -> None:
    fit(tmp_path, steps=1)
    state = load_file(tmp_path / "grey.state.safetensors")
    change(state)
    save_file(state, tmp_path / "grey.state.safetensors")
    with pytest.raises(UserError, match=rf"grey\.state\.safetensors: .*{says}; delete it and begin anew, or name another folder"):
        fit(tmp_path, steps=2)


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
sys.path.insert(0, "tests")
from test_training_loop import draw, loss, network
from flashlips_edge.training.checkpoint import save_weights
from flashlips_edge.training.loop import Schedule, train
average = train("grey", network(), draw, loss, Schedule(steps=20, rate=1e-2), Path(sys.argv[1]), workers=0)
save_weights(Path(sys.argv[1]) / f"rank{torch.distributed.get_rank()}.safetensors", average)
"""


def test_two_processes_of_torchrun_learn_the_same_weights(tmp_path: Path, repo: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repo), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two, written = (load_file(tmp_path / f"{name}.safetensors") for name in ("rank0", "rank1", "grey"))
    assert same(one, two) and same(one, written)
