"""Only what the key's holder signed opens, engine included; everything else is refused in one sentence."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins import Driver, tensorrt
from test_engines import orin_bundle

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines import build as device_build
from flashlips_edge.engines.cuda import Device
from flashlips_edge.errors import UserError
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
