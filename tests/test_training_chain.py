"""The whole recipe from raw videos to a bundle that speaks, killed on the way; and the same from a pack of clips."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from faces import speech, write_faces  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from flashlips_edge.bundle import Bundle  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.talking.networks import Networks  # noqa: E402
from flashlips_edge.training import __main__ as chain  # noqa: E402
from flashlips_edge.training import pack, ship  # noqa: E402
from flashlips_edge.training.clips import load_clips  # noqa: E402
from flashlips_edge.training.shards import Shards  # noqa: E402

SHARE = 0.0003  # of 8000 steps of the editor: two

# The command line with few synthetic people and small checks; where a step is given, every one is saved and it kills itself at that one.
COMMAND = """
import os, signal, sys
from flashlips_edge.training import __main__ as chain, editor, loop
from flashlips_edge.training.command import command
if __name__ == "__main__":
    last, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
    chain.LEAST_PEOPLE, editor.CHECKED, done, follow, replace = 6, 4, 0, loop.follow, loop.replace
    if last > 0:
        loop.replace = lambda schedule, **changes: replace(schedule, save_every_s=0.0, **changes)
    def counted(*arguments):
        global done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        follow(*arguments)
    loop.follow = counted
    command(chain.main)
"""
SECOND_OF_EDITOR = 3 + 1 + 2  # after the autoencoder's and the lips teacher's steps


def run(script: Path, repo: Path, last: int, *options: str) -> int:
    """Exit status of the recipe; ``last`` as the script has it."""
    environment = {**os.environ, "PYTHONPATH": str(repo), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(last), "--share", str(SHARE), *options]
    done = subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=280)
    print(done.stdout)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: sudo apt-get install espeak-ng")
def test_a_recipe_that_is_killed_on_the_way_ends_with_the_same_networks(tmp_path: Path, repo: Path) -> None:
    videos, work, script = tmp_path / "videos", tmp_path / "work", tmp_path / "recipe.py"
    videos.mkdir()
    write_faces(videos / "mute.mp4", n=30)
    script.write_text(COMMAND)
    options = ["--work", str(work), "--out", str(tmp_path / "bundle")]
    assert run(script, repo, SECOND_OF_EDITOR, "--data", str(videos), *options) == -signal.SIGKILL
    assert (work / "nano" / "editor_task.state.safetensors").exists()
    whole = tmp_path / "whole"
    shutil.copytree(work, whole)
    for left in (whole / "nano").glob("*editor*"):
        left.unlink()  # as if the editor had never begun
    (work / "latents" / "synthetic.1000.0" / "latents.npy").unlink()  # as if it had been killed there
    assert run(script, repo, -1, "--data", str(videos), *options) == 0
    assert run(script, repo, -1, "--stages", "editor,refinement,sharpening,lips-encoder,joint,audio-to-lips", "--work", str(whole)) == 0
    for name in ("editor", "lips_encoder", "speech_encoder", "audio_to_lips"):
        resumed, straight = (load_file(folder / "nano" / f"{name}.safetensors") for folder in (work, whole))
        assert all(torch.equal(resumed[key], straight[key]) for key in straight), name
    networks = Networks(Bundle.open(tmp_path / "bundle"))
    assert networks.speech(speech(0.4)).shape[0] == 10


def talking(seed: int) -> dict[str, np.ndarray]:
    """A clip of 30 pictures that change smoothly, with sound."""
    generator = np.random.default_rng(seed)
    shade = np.linspace(40, 200, 64)[None, :, None] * np.linspace(0.4, 1, 64)[:, None, None] * generator.uniform(0.5, 1, 3)
    crops = np.stack([np.roll(shade, i, 1) for i in range(30)]).astype(np.uint8)
    return {"crops.npy": crops, "pts_ns.npy": np.arange(30) * 40_000_000, "audio.npy": speech(1.2)}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Five clips of a man, one of a woman, and one of the synthetic head."""
    folder = tmp_path / "clips"
    with Shards(folder, 64) as shards:
        for i, name in enumerate([*(f"man.{i}" for i in range(5)), "woman.0", "synthetic.0"]):
            members = talking(i) | ({"params.npy": np.zeros((30, 6), np.float32)} if name.startswith("synthetic") else {})
            shards.add(name, 1, "1 kept", {name: members})
    return folder


def test_packed_clips_are_the_clips(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack.main(clips, tmp_path / "clips.zip", megabytes=5)
    assert "6 of 6 clips" in capsys.readouterr().out
    pack.unpack(tmp_path / "clips.zip", tmp_path / "there", 64)
    originals = {clip.name: clip for clip in load_clips(clips)}
    unpacked = load_clips(tmp_path / "there")
    assert [clip.name for clip in unpacked] == [name for name in originals if not name.startswith("synthetic")]
    for clip in unpacked:
        original = originals[clip.name]
        assert np.array_equal(clip.pts_ns, original.pts_ns) and clip.crops.shape == original.crops.shape
        assert clip.audio is not None and original.audio is not None and np.allclose(clip.audio, original.audio, atol=1e-4)
        error = np.square(clip.crops.astype(float) - original.crops).mean()
        assert 10 * np.log10(255**2 / error) > 36
        assert clip.held_out == original.held_out


def test_a_pack_is_as_small_as_was_asked_and_has_everybody(clips: Path, tmp_path: Path) -> None:
    pack.main(clips, tmp_path / "all.zip", megabytes=5, seconds=1)
    whole = (tmp_path / "all.zip").stat().st_size / 1e6
    pack.main(clips, tmp_path / "some.zip", megabytes=0.7 * whole, seconds=1)
    assert (tmp_path / "some.zip").stat().st_size < 0.7e6 * whole
    pack.unpack(tmp_path / "some.zip", tmp_path / "there", 64)
    assert {clip.set_name for clip in load_clips(tmp_path / "there")} == {"man", "woman"}


def test_a_file_that_is_no_pack_is_one_sentence(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.zip").write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(UserError, match=r"noise\.zip: no file of training\.pack, or a damaged one"):
        pack.unpack(tmp_path / "noise.zip", tmp_path / "there", 64)
    pack.main(clips, tmp_path / "clips.zip")
    with pytest.raises(UserError, match="crops of 64 px, .* 160 px"):
        pack.unpack(tmp_path / "clips.zip", tmp_path / "there", 160)
    cut = tmp_path / "cut.zip"
    cut.write_bytes((tmp_path / "clips.zip").read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged"):
        pack.unpack(cut, tmp_path / "there", 64)
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as file:
        file.writestr("pack.json", "[1]")
    with pytest.raises(UserError, match="damaged"):
        pack.unpack(tmp_path / "list.zip", tmp_path / "there", 64)
    assert not (tmp_path / "there").exists()
    with pytest.raises(UserError, match=r"noise\.zip: Not a directory; name a folder that can be written"):
        pack.unpack(tmp_path / "clips.zip", tmp_path / "noise.zip" / "clips", 64)


def test_wrong_options_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stages 'editors' is not one of clips, synthetic-clips, autoencoder"):
        chain.main(stages="editors", work=tmp_path)
    with pytest.raises(UserError, match="--data .*nowhere: no such folder or file"):
        chain.main(data=tmp_path / "nowhere", work=tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "clips").touch()
    for preset, words in (("paper", "nowhere: no such safetensors file"), ("nano", "nowhere: the preset's loss has no perceptual term")):
        with pytest.raises(UserError, match=rf"--vgg19 .*{words}"):
            chain.main(data=tmp_path, work=tmp_path / "work", preset=preset, vgg19=tmp_path / "nowhere")
    for options, words in (({"preset": "paper"}, "needs the folder of wav2vec 2.0 base"), ({"out": tmp_path / "mine"}, "is no bundle")):
        with pytest.raises(UserError, match=words):
            chain.main(data=tmp_path, work=tmp_path / "work", **options)
    for options, words in (({"sdxl": tmp_path}, "--sdxl .*"), ({"wav2vec": tmp_path, "preset": "paper"}, r"--wav2vec .*: config\.json")):
        if "sdxl" not in options or find_spec("diffusers"):
            with pytest.raises(UserError, match=words):
                chain.main(data=tmp_path, work=tmp_path / "work", **options)
    assert not (tmp_path / "work").exists() and (tmp_path / "mine" / "clips").exists()
    with pytest.raises(UserError, match=r"--weights .*: none of autoencoder, editor, .* is there"):
        ship.main(tmp_path, tmp_path / "out")


def test_a_network_that_is_damaged_is_not_shipped_and_nothing_beside_it(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "autoencoder.safetensors")
    (tmp_path / "editor.safetensors").write_bytes((tmp_path / "autoencoder.safetensors").read_bytes()[:-4])
    with pytest.raises(UserError, match=r"editor\.safetensors: damaged; delete it and run the training stage that writes it again"):
        ship.main(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shipped_networks_are_the_trained_ones_in_half_precision(tmp_path: Path) -> None:
    from flashlips_edge.models.autoencoder import Autoencoder
    from flashlips_edge.models.presets import load_preset
    from flashlips_edge.training.checkpoint import load_weights, save_weights

    torch.manual_seed(0)
    trained, loaded = (Autoencoder(**load_preset("nano")["autoencoder"]) for _ in range(2))
    save_weights(tmp_path / "autoencoder.safetensors", trained)
    (tmp_path / "lips.json").write_text("{}")
    (tmp_path / "editor_task.state.safetensors").write_bytes(b"not shipped")
    ship.main(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["autoencoder.safetensors", "lips.json"]
    assert (tmp_path / "out" / "autoencoder.safetensors").stat().st_size < 0.52 * (tmp_path / "autoencoder.safetensors").stat().st_size
    load_weights(tmp_path / "out" / "autoencoder.safetensors", loaded)
    for ours, theirs in zip(trained.parameters(), loaded.parameters()):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)
