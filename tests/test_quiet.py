"""OpenCV keeps quiet, in every release that may be installed."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import pytest

from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import YuNetDetector
from flashlips_edge.quiet import SILENT, set_opencv_log_level


def test_the_installed_release_is_silenced_and_set_back():
    before = set_opencv_log_level()
    assert set_opencv_log_level(before) == SILENT
    assert set_opencv_log_level(before) == before


@pytest.mark.parametrize("newer", [False, True], ids=["at the top", "in utils"])
def test_a_wrong_detector_file_is_one_sentence_where_the_function_lies_elsewhere(tmp_path, monkeypatch, newer):
    levels = [3]

    def set_log_level(level: int) -> int:
        levels.append(level)
        return levels[-2]

    monkeypatch.setattr(cv2, "utils", SimpleNamespace(logging=SimpleNamespace(setLogLevel=set_log_level)) if newer else SimpleNamespace())
    monkeypatch.delattr(cv2, "setLogLevel", raising=False)
    if not newer:
        monkeypatch.setattr(cv2, "setLogLevel", set_log_level, raising=False)
    (tmp_path / "wrong.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="not a YuNet model"):
        YuNetDetector(tmp_path / "wrong.onnx")
    assert levels == [3, SILENT, 3]
