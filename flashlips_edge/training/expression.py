"""A pretrained expression encoder that the user brings, in the place of the lips teacher's own (FlashLips, section 3.3).

An ONNX graph, since weights are never pickled. It stays as it is: what learns is the projector to the lips vector's 8 dimensions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import onnxruntime
import torch
import typer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.models.lips import LipsTeacher, ProjectedExpression

HELP = "ONNX graph of a pretrained expression encoder, face [B, 3, E, E] in [0, 1] -> [B, features]; none: our own is trained"
ExpressionFile = Annotated[Optional[Path], typer.Option("--expression", help=HELP)]  # noqa: UP045 typer reads it in 3.10
NEEDED = "an ONNX graph is needed with one input, a face float32 [B, 3, E, E], B free or 1, and one output, float32 [B, features]"
PLACE = "teacher.expression."  # in the weights of every stage that has a lips teacher
CUDA = "CUDAExecutionProvider"


class ExpressionGraph(nn.Module):
    """face [B, 3, e, e] in [0, 1], of any size, -> features [B, ``features``] float32, through which no gradient goes.

    ONNX Runtime computes it, on the GPU where it has CUDA; faces go one by one through a graph whose batch is 1. There is nothing in it
    to train or to save. Raises UserError for a file that is no graph, or one of other shapes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.session = path, _session(path)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        alone = len(inputs) == len(outputs) == 1 and {tensor.type for tensor in (*inputs, *outputs)} == {"tensor(float)"}
        batch, channels, height, width = inputs[0].shape if alone and len(inputs[0].shape) == 4 else [0] * 4
        if channels != 3 or type(height) is not int or height != width or (type(batch) is int and batch != 1):
            taken, given = ([list(tensor.shape) for tensor in tensors] for tensors in (inputs, outputs))
            raise UserError(f"--expression {path}: takes {taken} and gives {given}; {NEEDED}")
        self.name, self.size, self.one_by_one = inputs[0].name, height, batch == 1
        self.features = self._features(1 if self.one_by_one else 2)

    def _features(self, count: int) -> int:
        """How many, as ``count`` grey faces show. Raises UserError where the graph does not give them."""
        try:
            found = self.session.run(None, {self.name: np.full((count, 3, self.size, self.size), 0.5, np.float32)})[0]
        except Exception as error:  # ONNX Runtime has no common base class for its own
            raise UserError(f"--expression {self.path}: fails on {count} grey faces: {_first_line(error)}; {NEEDED}") from None
        if found.ndim < 2 or len(found) != count or not found.size or not np.isfinite(found).all():
            raise UserError(f"--expression {self.path}: gives {list(found.shape)} of {count} grey faces, or what is not finite; {NEEDED}")
        return found.size // count

    def forward(self, face: Tensor) -> Tensor:
        wanted = F.interpolate(face.detach().float(), (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        faces = wanted.clamp(0, 1).contiguous().cpu().numpy()  # a disguise brightens beyond white
        parts = np.split(faces, len(faces)) if self.one_by_one else [faces]
        features = np.concatenate([self.session.run(None, {self.name: part})[0] for part in parts])
        return torch.from_numpy(features).flatten(1).to(face.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExpressionGraph:
        return self  # a session cannot be copied, and has nothing that changes


def _session(path: Path) -> onnxruntime.InferenceSession:
    """The graph, as many threads as torch has, on this process's GPU where there is one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch needs the cores between two runs
    gpu = torch.cuda.is_available() and CUDA in onnxruntime.get_available_providers()
    device = (CUDA, {"device_id": int(os.environ.get("LOCAL_RANK", "0"))})  # torchrun says which
    if not path.is_file():
        raise UserError(f"--expression {path}: no such file; {NEEDED}")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*([device] if gpu else []), "CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class for its own
        raise UserError(f"--expression {path}: ONNX Runtime cannot load it: {_first_line(error)}; {NEEDED}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def make_teacher(preset: dict[str, Any], expression: ExpressionGraph | None) -> LipsTeacher:
    """The preset's lips teacher, with the given expression encoder and a new projector, or with our own."""
    given = None if expression is None else ProjectedExpression(expression, expression.features)
    return LipsTeacher(**preset["lips_teacher"], expression=given)


def load_expression(path: Path | None, weights: Path) -> ExpressionGraph | None:
    """The expression encoder of the file, if one is named. Raises UserError where it is none, and where a stage that trained in the
    folder ``weights`` had another, or none while one is named now."""
    graph = None if path is None else ExpressionGraph(path)
    own = 0 if graph is None else graph.features
    for stage in sorted(weights.glob("*.safetensors")):
        had = _trained_with(stage)
        if had is None or had == own:
            continue
        if graph is None:
            raise UserError(f"{stage}: its lips teacher has an expression encoder of {had} features; name its ONNX graph with --expression")
        found = f"one of {had} features" if had else "our own expression encoder"
        raise UserError(f"--expression {path}: has {own} features, {stage} was trained with {found}; name that, or another folder")
    return graph


def _trained_with(path: Path) -> int | None:
    """Features of the expression encoder that a stage's weights or state had; 0: our own encoder; None: no lips teacher is in there."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if PLACE in name}  # noqa: SIM118 it is no dict
    except (OSError, SafetensorError):
        return None  # said by whoever needs the file
    if not shapes:
        return None
    return next((shape[1] for name, shape in shapes.items() if name.endswith(f"{PLACE}projector.0.weight")), 0)
