"""Files are whole or not there, and what is in their way is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashlips_edge.errors import UserError
from flashlips_edge.files import check_place, make_folder, write_bytes


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
