"""Only what the key's holder signed opens, engine included; everything else is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faces import write_faces
from hypothesis import given
from hypothesis import strategies as st
from standins import Driver, tensorrt
from test_engines import orin_bundle
from tiny_bundle import tiny_bundle

from flashlips_edge import prepare, run, soak
from flashlips_edge.bundle import Bundle
from flashlips_edge.engines import build as device_build
from flashlips_edge.engines.cuda import Device
from flashlips_edge.engines.engine_folder import EngineFolder
from flashlips_edge.errors import UserError
from flashlips_edge.session import LipSync
from flashlips_edge.signature import keygen, main, open_signed, sign

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'flashlips-edge[sign]'")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key, key.pub, and a signed bundle with its engine."""
    folder = tmp_path_factory.mktemp("signed")
    bundle = orin_bundle(folder / "bundle")
    with Device(Driver()) as device:
        device_build.build(bundle, tensorrt(), device, lambda line: None)
    keygen(folder / "key")
    assert len(sign(folder / "key", folder / "bundle")) == 2
    return folder


@pytest.fixture()
def copy(signed: Path, tmp_path: Path) -> Path:
    shutil.copytree(signed, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_was_signed_opens(signed: Path) -> None:
    assert open_signed(signed / "bundle", signed / "key.pub").manifest == Bundle.open(signed / "bundle").manifest


def test_the_private_key_is_its_owner_s_alone_and_never_written_over(signed: Path) -> None:
    assert stat.S_IMODE((signed / "key").stat().st_mode) == 0o600
    before = (signed / "key").read_bytes()
    with pytest.raises(UserError, match="is there already; a key is never written over"):
        keygen(signed / "key")
    assert (signed / "key").read_bytes() == before


def _resign_engine_as_bundle(folder: Path) -> None:
    (folder / "bundle" / "engine" / "manifest.json.sig").write_bytes((folder / "bundle" / "manifest.json.sig").read_bytes())


def _alter_manifest(folder: Path, name: str) -> None:
    path = folder / "bundle" / name
    path.write_text(path.read_text() + " ")


def _swap_plan(folder: Path) -> None:
    plan = next((folder / "bundle" / "engine").glob("editor.*.plan"))
    plan.write_bytes(b"another program")


def _new_key(folder: Path) -> None:
    (folder / "key").unlink()
    (folder / "key.pub").unlink()
    keygen(folder / "key")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "bundle" / "manifest.json.sig").unlink(), "manifest.json is not signed"),
        (lambda folder: (folder / "bundle" / "engine" / "manifest.json.sig").unlink(), "engine/manifest.json is not signed"),
        (lambda folder: (folder / "bundle" / "manifest.json.sig").write_bytes(b"?"), "manifest.json.sig|was not signed"),
        (lambda folder: os.truncate(folder / "bundle" / "manifest.json.sig", 10**12), "manifest.json.sig is not a readable signature"),
        (lambda folder: os.truncate(folder / "bundle" / "engine" / "manifest.json", 10**12), "engine/manifest.json.sig is not a readable"),
        (lambda folder: _alter_manifest(folder, "engine/manifest.json"), "engine/manifest.json was not signed with the key"),
        (lambda folder: (folder / "bundle" / "editor.onnx").write_bytes(b"x"), "editor.onnx was altered"),
        (_resign_engine_as_bundle, "engine/manifest.json was not signed with the key"),
        (_swap_plan, "is cut short or altered"),
        (_new_key, "manifest.json was not signed with the key of"),
        (lambda folder: (folder / "key.pub").unlink(), "the public key .* cannot be read"),
        (lambda folder: shutil.copyfile(folder / "key", folder / "key.pub"), "is not the public half of an Ed25519 key"),
    ],
    ids=[
        "unsigned",
        "unsigned engine",
        "no base64",
        "endless signature",
        "endless manifest",
        "altered",
        "graph",
        "other signature",
        "engine file",
        "other key",
        "no key",
        "private key",
    ],
)
def test_everything_else_is_refused(spoil: Callable[[Path], object], words: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(copy)
    with pytest.raises(UserError, match=words):
        open_signed(copy / "bundle", copy / "key.pub")
    assert main(["verify", str(copy / "key.pub"), str(copy / "bundle")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(copy / "mine")]) == 0
    assert main(["sign", str(copy / "mine"), str(copy / "bundle")]) == 0
    assert main(["verify", str(copy / "mine.pub"), str(copy / "bundle")]) == 0
    assert "signed with the key of" in capsys.readouterr().out
    assert main(["verify", str(copy / "key.pub"), str(copy / "bundle")]) == 2


def test_what_is_not_whole_is_not_signed(copy: Path) -> None:
    _swap_plan(copy)
    with pytest.raises(UserError, match="is cut short or altered"):
        sign(copy / "key", copy / "bundle")


@given(data=st.binary(max_size=100))
def test_no_signature_or_key_crashes_the_check(signed: Path, data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.getbasetemp() / "any.pub"
    place.write_bytes(data)
    with pytest.raises(UserError) as error:
        open_signed(signed / "bundle", place)
    assert "\n" not in str(error.value)
    signature = signed / "bundle" / "manifest.json.sig"
    right = signature.read_bytes()
    try:
        signature.write_bytes(data)
        with pytest.raises(UserError):
            open_signed(signed / "bundle", signed / "key.pub")
    finally:
        signature.write_bytes(right)


def test_a_signature_is_no_file_of_the_bundle(signed: Path) -> None:
    assert not any(name.endswith(".sig") for name in json.loads((signed / "bundle" / "manifest.json").read_text())["files"])


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key, key.pub, a face in idle.mp4, and a signed bundle without an engine."""
    folder = tmp_path_factory.mktemp("face")
    tiny_bundle(folder / "bundle")
    keygen(folder / "key")
    sign(folder / "key", folder / "bundle")
    write_faces(folder / "idle.mp4", 10)
    return folder


def _relocate_plan(folder: Path) -> None:
    plan = next((folder / "bundle" / "engine").glob("editor.*.plan"))
    plan.rename(folder / "elsewhere.plan")
    plan.symlink_to(folder / "elsewhere.plan")


COMMANDS: dict[str, tuple[Callable[..., int], list[str]]] = {
    "run": (run.main, ["--avatar", "IDLE", "--driver", "IDLE", "--out", "OUT"]),
    "run, live": (run.main, ["--avatar", "IDLE", "--driver", "IDLE", "--out", "OUT", "--live", "--seconds", "1"]),
    "prepare": (prepare.main, ["IDLE", "--consent", "Ada, for this test", "--out", "OUT"]),
    "soak": (soak.main, ["--avatar", "IDLE", "--hours", "0.0003"]),
}


def command(name: str, folder: Path, bundle: Path, key: Path) -> tuple[Callable[..., int], list[str]]:
    main, words = COMMANDS[name]
    places = {"IDLE": str(folder / "idle.mp4"), "OUT": str(folder / f"{name}.mp4")}
    return main, [places.get(word, word) for word in words] + ["--bundle", str(bundle), "--require-signature", str(key)]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "bundle" / "manifest.json.sig").unlink(), "is not signed, and a signature by "),
        (lambda folder: _alter_manifest(folder, "manifest.json"), "or was altered since; do not use it"),
        (_new_key, "manifest.json was not signed with the key of "),
        (_swap_plan, "is cut short or altered"),
        (_relocate_plan, "which is outside the folder; do not use this engine"),
    ],
    ids=["unsigned", "altered", "other key", "engine altered", "engine relocated"],
)
def test_a_command_refuses_what_the_required_key_did_not_sign(
    name: str, spoil: Callable[[Path], object], words: str, copy: Path, face: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copy)
    shutil.copyfile(face / "idle.mp4", copy / "idle.mp4")
    before = sorted(copy.iterdir())
    main, arguments = command(name, copy, copy / "bundle", copy / "key.pub")
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0] and said[0].startswith("flashlips_edge.")
    assert sorted(copy.iterdir()) == before, "nothing was written"


@pytest.mark.parametrize("name", ["run", "run, live", "prepare"])
def test_a_command_takes_what_the_required_key_signed(name: str, face: Path) -> None:
    main, arguments = command(name, face, face / "bundle", face / "key.pub")
    assert main(arguments) == 0


def test_the_service_refuses_it_too(copy: Path, face: Path) -> None:
    pytest.importorskip("aiohttp")
    (copy / "bundle" / "manifest.json.sig").unlink()
    words = ["--avatar", str(face / "idle.mp4"), "--bundle", str(copy / "bundle"), "--require-signature", str(copy / "key.pub")]
    done = subprocess.run(
        [sys.executable, "-m", "flashlips_edge.serve", *words, "--port", "0"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "is not signed" in done.stderr and "Traceback" not in done.stderr


def test_the_embedding_api_takes_the_key(face: Path, copy: Path) -> None:
    with LipSync.open(face / "bundle", avatar=face / "idle.mp4", require_signature=face / "key.pub") as session:
        assert next(session.frames()).image.ndim == 3
    with pytest.raises(UserError, match="was not signed with the key of"):
        LipSync.open(face / "bundle", avatar=face / "idle.mp4", require_signature=copy / "key.pub")


def test_the_shipped_networks_are_unsigned_and_so_refused(face: Path) -> None:
    with pytest.raises(UserError, match="is not signed"):
        LipSync.open(avatar=face / "idle.mp4", require_signature=face / "key.pub")


def test_an_engine_that_comes_after_the_check_is_refused_when_it_is_loaded(copy: Path, face: Path) -> None:
    bundle = open_signed(copy / "bundle", copy / "key.pub")
    _alter_manifest(copy, "engine/manifest.json")
    with pytest.raises(UserError, match="was written after its signature was checked"):
        EngineFolder.open(bundle)
    assert EngineFolder.open(Bundle.open(copy / "bundle")) is not None, "without the requirement it opens"
    unbuilt = open_signed(face / "bundle", face / "key.pub")
    (face / "bundle" / "engine").mkdir()
    (face / "bundle" / "engine" / "manifest.json").write_text("{}")
    try:
        with pytest.raises(UserError, match="was written after its signature was checked"):
            EngineFolder.open(unbuilt)
    finally:
        shutil.rmtree(face / "bundle" / "engine")
