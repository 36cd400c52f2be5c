"""Files are whole or not there, and what is in their way is one sentence."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path, check_place, make_folder, write_bytes


def test_a_folder_in_a_file_s_place_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match=r"report\.json: it cannot be written: Is a directory; give another place"):
        write_bytes(tmp_path / "report.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_file_in_a_folder_s_place_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match=r"cannot write .*b\.json: Not a directory"):
        write_bytes(tmp_path / "a" / "b.json", b"{}")
    with pytest.raises(UserError, match="cannot write to .*a: Not a directory"):
        make_folder(tmp_path / "a")


def test_a_place_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "report.json", "--report")
    (tmp_path / "file").touch()
    check_place(tmp_path / "file", "--report")
    for place, says in ((tmp_path, "this is a folder"), (tmp_path / "file" / "a", "Not a directory"), (tmp_path / ("a" * 300), "too long")):
        with pytest.raises(UserError, match=f"--report {place}: .*{says}"):
            check_place(place, "--report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_any_name_that_a_file_may_have_is_written(tmp_path: Path) -> None:
    for stem in ("a" * 251, "ü" * 125, "b" * 240):
        write_bytes(tmp_path / f"{stem}.mp4", stem.encode())
        assert (tmp_path / f"{stem}.mp4").read_bytes() == stem.encode()
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(UserError, match="File name too long"):
        write_bytes(tmp_path / f"{'a' * 252}.mp4", b"")


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o444])
def test_what_is_replaced_keeps_its_mode_and_is_never_open_to_more(mode: int, tmp_path: Path) -> None:
    (tmp_path / "secret.json").touch()
    (tmp_path / "secret.json").chmod(mode)
    before = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "secret.json") as temporary:
            assert temporary.stat().st_mode & 0o777 & ~(mode | 0o600) == 0
            temporary.unlink()  # as a library may that writes a file of its own
            temporary.write_bytes(b"{}")
        write_bytes(tmp_path / "new.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "secret.json").stat().st_mode & 0o777 == mode
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o644


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "foreseen")
    (tmp_path / "mine").write_bytes(b"mine")
    for name in (f".report.{os.getpid()}.json", ".report.foreseen.json"):
        (tmp_path / name).symlink_to("mine")
    with pytest.raises(UserError, match=r"cannot write .*report\.json"):
        write_bytes(tmp_path / "report.json", b"{}")
    assert (tmp_path / "mine").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 3
