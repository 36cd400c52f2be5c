"""What the libraries do by themselves with the same graphs and the same calibration set: ONNX Runtime's and modelopt's defaults."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from flashlips_edge.bundle import Bundle
from quantize.graph import Feed


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def onnx_runtime(bundle: Bundle, name: str, feeds: list[Feed], path: Path) -> None:
    """quantize_static with its own choices: every operation that it knows, a scale for each tensor, ranges from the extremes."""
    with _quiet():
        quantize_static(str(bundle.graph_path(name)), str(path), _Reader(feeds))


def modelopt(bundle: Bundle, name: str, feeds: list[Feed], path: Path, form: str) -> None:
    """modelopt.onnx with its own choices: entropy for INT8, max for FP8; what is left in FP16."""
    from modelopt.onnx.quantization import quantize

    stacked = {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{name}.onnx"  # it writes beside its input
        source.write_bytes(bundle.graph_path(name).read_bytes())
        quantize(
            str(source), quantize_mode=form, calibration_data=stacked, calibration_eps=["cpu"], output_path=str(path), log_level="ERROR"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
