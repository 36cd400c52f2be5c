"""OpenCV writes what it thinks of a file or a camera to standard error; our one sentence says it instead."""

from __future__ import annotations

import cv2

SILENT = 0  # LOG_LEVEL_SILENT of every OpenCV 4


def set_opencv_log_level(level: int = SILENT) -> int:
    """What OpenCV says from now on, for the whole process; returns the level before."""
    logging = getattr(cv2.utils, "logging", None)  # older ones, as `make demo` installs, have the function at the top
    return int(cv2.setLogLevel(level) if logging is None else logging.setLogLevel(level))
