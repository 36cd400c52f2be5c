"""A bundle whose graphs are a few lines of arithmetic, so that a test knows what each must answer. Names and shapes are nano's.

latent_encoder   means of 8 x 8 pixels in channels 0 to 2
latent_decoder   those means, enlarged
editor           latent + lips[0]: an open mouth makes the crop brighter
lips_encoder     lips[0] = mean brightness of the face
speech_encoder   [mean of the four feature frames of a step]
audio_to_lips    lips[0] = speech + 1 (loud: about 1, silent: about 0.5)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flashlips_edge.bundle import Bundle, write_manifest

SIZE, CELLS, CHANNELS, FACE = 160, 20, 16, 96
WINDOW, PREVIOUS, EMOTION = 50, 10, 8


def graphs() -> dict[str, onnx.ModelProto]:
    """The six graphs by name."""
    return {
        "latent_encoder": _graph(
            {"image": ["B", 3, SIZE, SIZE]},
            {"latent": ["B", CHANNELS, CELLS, CELLS]},
            [
                helper.make_node("AveragePool", ["image"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
                helper.make_node("Pad", ["means", "pads"], ["latent"]),
            ],
            {"pads": np.array([0, 0, 0, 0, 0, CHANNELS - 3, 0, 0])},
        ),
        "editor": _graph(
            {
                "latent": ["B", CHANNELS, CELLS, CELLS],
                "reference_latents": ["B", 4 * CHANNELS, CELLS, CELLS],
                "lips": ["B", 12],
            },
            {"edited_latent": ["B", CHANNELS, CELLS, CELLS]},
            [
                helper.make_node("Slice", ["lips", "zero", "one", "one"], ["first"]),
                helper.make_node("Reshape", ["first", "map"], ["brightness"]),
                helper.make_node("Slice", ["reference_latents", "zero", "one", "one"], ["reference"]),
                helper.make_node("Mul", ["reference", "nothing"], ["unused"]),
                helper.make_node("Add", ["latent", "brightness"], ["brighter"]),
                helper.make_node("Add", ["brighter", "unused"], ["edited_latent"]),
            ],
            {
                "zero": np.array([0]),
                "one": np.array([1]),
                "map": np.array([-1, 1, 1, 1]),
                "nothing": np.zeros(1, np.float32),
            },
        ),
        "latent_decoder": _graph(
            {"edited_latent": ["B", CHANNELS, CELLS, CELLS]},
            {"image": ["B", 3, SIZE, SIZE]},
            [
                helper.make_node("Slice", ["edited_latent", "zero", "three", "one"], ["means"]),
                helper.make_node("Resize", ["means", "", "scales"], ["image"], mode="nearest"),
            ],
            {
                "zero": np.array([0]),
                "three": np.array([3]),
                "one": np.array([1]),
                "scales": np.array([1, 1, 8, 8], np.float32),
            },
        ),
        "lips_encoder": _graph(
            {"face": ["B", 3, FACE, FACE]},
            {"lips": ["B", 12]},
            [
                helper.make_node("ReduceMean", ["face", "axes"], ["brightness"], keepdims=0),
                helper.make_node("Reshape", ["brightness", "column"], ["first"]),
                helper.make_node("Pad", ["first", "pads"], ["lips"]),
            ],
            {"axes": np.array([1, 2, 3]), "column": np.array([-1, 1]), "pads": np.array([0, 0, 0, 11])},
        ),
        "speech_encoder": _graph(
            {"audio": ["B", "4T", 80]},
            {"speech": ["B", "T", 1]},
            [
                helper.make_node("Reshape", ["audio", "steps"], ["stepped"]),
                helper.make_node("ReduceMean", ["stepped", "axes"], ["speech"], keepdims=1),
            ],
            {"steps": np.array([0, -1, 320]), "axes": np.array([2])},
        ),
        "audio_to_lips": _graph(
            {
                "noise": ["B", WINDOW, 12],
                "speech": ["B", WINDOW, 1],
                "emotion": ["B", EMOTION],
                "reference_lips": ["B", 4, 12],
                "previous_lips": ["B", PREVIOUS, 12],
            },
            {"lips": ["B", WINDOW, 12]},
            [
                helper.make_node("Add", ["speech", "unit"], ["first"]),
                helper.make_node("Pad", ["first", "pads"], ["spoken"]),
                helper.make_node("ReduceMean", ["emotion", "axes2"], ["mood"], keepdims=0),
                helper.make_node("ReduceMean", ["reference_lips", "axes3"], ["reference"], keepdims=0),
                helper.make_node("ReduceMean", ["previous_lips", "axes3"], ["previous"], keepdims=0),
                helper.make_node("Sum", ["mood", "reference", "previous"], ["inputs"]),
                helper.make_node("Mul", ["inputs", "nothing"], ["unused"]),
                helper.make_node("Sum", ["noise", "spoken", "unused"], ["lips"]),
            ],
            {
                "unit": np.ones(1, np.float32),
                "pads": np.array([0, 0, 0, 0, 0, 11]),
                "axes2": np.array([0, 1]),
                "axes3": np.array([0, 1, 2]),
                "nothing": np.zeros(1, np.float32),
            },
        ),
    }


def tiny_bundle(folder: Path) -> Bundle:
    """Write the bundle to `folder` and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, model in graphs().items():
        onnx.save(model, folder / f"{name}.onnx")
        entries[name] = {"file": f"{name}.onnx"}
    fields = {
        "preset": "tiny",
        "crop_size": SIZE,
        "lips": {"opening": [1.0] + [0.0] * 11, "closed": [0.0] * 12},
        "audio_to_lips": {"window": WINDOW, "previous": PREVIOUS, "references": 4, "emotion": EMOTION},
        "graphs": entries,
        "licence": "Apache-2.0",
    }
    write_manifest(folder, fields)
    return Bundle.open(folder)


def _graph(inputs: dict, outputs: dict, nodes: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    def tensors(shapes: dict) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", tensors(inputs), tensors(outputs), initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
