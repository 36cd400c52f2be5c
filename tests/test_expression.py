"""A pretrained expression encoder from an ONNX file says what eight dimensions of the lips vector are, in every stage."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[build]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_training import write_person  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.autoencoder import Autoencoder  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import __main__ as chain  # noqa: E402
from flashlips_edge.training import editor, latents, lips_encoder, lips_teacher, refinement, sharpening  # noqa: E402
from flashlips_edge.training.checkpoint import load_weights, save_weights  # noqa: E402
from flashlips_edge.training.editor import EditorLoss, EditorTask, editor_loss  # noqa: E402
from flashlips_edge.training.expression import ExpressionGraph, load_expression, make_teacher  # noqa: E402
from flashlips_edge.training.pace import Pace, at  # noqa: E402
from flashlips_edge.training.pairs import draw, load_people, person_weights  # noqa: E402

PRESET = load_preset("nano")
EIGHT, FOUR = slice(0, 8), slice(8, 12)  # of the projected expression, and of the mouth
Shape = list[int | str]


def write_graph(
    path: Path,
    shape: Shape,
    gain: float = 1.0,
    cells: int = 2,
    kind: int = TensorProto.FLOAT,
    outputs: int = 1,
    reshaped: tuple[int, ...] = (0, 0, 0, 0),
) -> Path:
    """An encoder of a few lines: the face's means in ``cells`` x ``cells`` cells of each colour, times ``gain``, [B, 3, cells, cells]."""
    pooled = [shape[-1] // cells if isinstance(shape[-1], int) else 1] * (len(shape) - 2)
    nodes = [
        helper.make_node("AveragePool", ["face"], ["means"], kernel_shape=pooled, strides=pooled),
        helper.make_node("Reshape", ["means", "shape"], ["reshaped"]),
        *(helper.make_node("Mul", ["reshaped", "gain"], [f"features{i}"]) for i in range(outputs)),
    ]
    numbers = {"gain": np.array(gain, np.float16 if kind == TensorProto.FLOAT16 else np.float32), "shape": np.array(reshaped[: len(shape)])}
    constants = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    given = [helper.make_tensor_value_info(f"features{i}", kind, None) for i in range(outputs)]
    graph = helper.make_graph(nodes, "expression", [helper.make_tensor_value_info("face", kind, shape)], given, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``latents`` of two synthetic people, an untrained autoencoder in ``nano``, and ``expression.onnx`` of 12 features."""
    work = tmp_path_factory.mktemp("work")
    for seed in (3, 4):
        write_person(seed, work / "clips" / f"synthetic.{seed}")
    torch.manual_seed(0)
    path = work / "nano" / "autoencoder.safetensors"
    save_weights(path, Autoencoder(**PRESET["autoencoder"]))
    latents.main(work / "clips", path, work / "latents", "nano")
    write_graph(work / "expression.onnx", ["B", 3, 64, 64])
    return work


def test_the_stages_follow_one_another_with_a_given_encoder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "CHECKED", 4)
    folder, weights, file = cache / "latents", cache / "nano", cache / "expression.onnx"
    with at(Pace(batch=4)):
        for stage in (lips_teacher, editor, refinement, sharpening, lips_encoder):
            stage.main(folder, weights, "nano", steps=2, expression=file)
    load_weights(weights / "lips_encoder.safetensors", LipsEncoder(**PRESET["lips"]))  # whole, and the same as ever

    trained = [load_file(weights / f"{name}.safetensors") for name in ("teacher_task", "editor_task", "editor_refinement")]
    (key,) = (name for name in trained[0] if name.startswith("teacher.expression.") and trained[0][name].shape == (128, 12))
    assert not any(name.startswith("teacher.expression.encoder") for name in trained[0]), "the graph is in no file of weights"
    assert not torch.equal(trained[0][key], trained[1][key]), "its projector learns with the editor"
    assert torch.equal(trained[1][key], trained[2][key]), "and is then held"

    before = (weights / "teacher_task.safetensors").read_bytes()
    lips_teacher.main(folder, weights, "nano", steps=2, expression=file)  # is done, and not done again
    assert (weights / "teacher_task.safetensors").read_bytes() == before
    with pytest.raises(UserError, match=r"editor_refinement\.safetensors: its lips teacher has .* of 12 features; name .* --expression"):
        lips_encoder.main(folder, weights, "nano", steps=2)
    other = write_graph(cache / "other.onnx", ["B", 3, 64, 64], cells=4)
    for stage in (lips_teacher, editor, refinement, sharpening, lips_encoder):
        with pytest.raises(UserError, match=r"--expression .*other\.onnx: has 48 features, .* was trained with one of 12 features"):
            stage.main(folder, weights, "nano", steps=4, expression=other)
    with pytest.raises(UserError, match=r"--expression .*other\.onnx: has 48 features"):
        chain.main(data=folder, work=cache, stages="lips-encoder", expression=other)


def test_a_given_encoder_does_not_go_on_where_our_own_was_trained(cache: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "teacher_task.safetensors", lips_teacher.TeacherTask(PRESET))
    with pytest.raises(UserError, match=r"--expression .*: has 12 features, .* was trained with our own expression encoder"):
        editor.main(cache / "latents", tmp_path, "nano", steps=2, expression=cache / "expression.onnx")
    assert load_expression(None, tmp_path) is None


def test_the_file_says_the_eight_dimensions_and_nothing_else(cache: Path) -> None:
    first, second = (
        make_teacher(PRESET, ExpressionGraph(path))
        for path in (cache / "expression.onnx", write_graph(cache / "x.onnx", ["B", 3, 32, 32], 3))
    )
    second.load_state_dict(first.state_dict())
    face, mouth = torch.rand(3, 3, 96, 96), torch.rand(3, 3, 64, 64)
    lips, others = first(face, mouth), second(face, mouth)
    assert (lips[:, EIGHT] - others[:, EIGHT]).abs().min() > 0 and torch.equal(lips[:, FOUR], others[:, FOUR])
    assert torch.equal(lips, copy.deepcopy(first)(face, mouth)), "an average of weights has the same graph"


@pytest.mark.parametrize("batch", ["B", 1])
def test_faces_of_any_size_are_seen_in_the_graph_s(batch: int | str, tmp_path: Path) -> None:
    graph = ExpressionGraph(write_graph(tmp_path / "x.onnx", [batch, 3, 32, 32]))
    faces = torch.linspace(0, 1.5, 5)[:, None, None, None].expand(5, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    assert graph.features == 12 and not list(graph.parameters())
    assert torch.allclose(graph(faces), faces[:, :1, 0, 0].clamp(max=1).expand(5, 12), atol=1e-6), "white is as bright as it gets"


def test_a_given_encoder_sees_the_face_as_it_is_stored(cache: Path) -> None:
    seen: list[torch.Size] = []
    for given in (ExpressionGraph(cache / "expression.onnx"), None):
        teacher = make_teacher(PRESET, given)
        teacher.expression.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        EditorLoss(None).lips_of(teacher, torch.rand(2, 3, 104, 160), torch.rand(2, 3, 224, 224), 1.0)
    assert [shape[-1] for shape in seen] == [224, 96], "our own in 96 px"


def test_a_picture_is_pulled_to_the_lips_by_the_mouth_alone(cache: Path, tmp_path: Path) -> None:
    given = ExpressionGraph(cache / "expression.onnx")
    save_weights(tmp_path / "autoencoder.safetensors", Autoencoder(**PRESET["autoencoder"]))
    people, _ = load_people(cache / "latents")
    frozen, task = EditorTask(PRESET, expression=given), EditorTask(PRESET, expression=given)
    loss = refinement.RefinementLoss(editor_loss(PRESET, tmp_path, None, None, None), frozen)
    obey = loss.refine(task, draw(people, person_weights(people), np.random.default_rng(0), 4, 0.0))["obey"]
    obey.backward()
    assert task.editor.residual.weight.grad.abs().sum() > 0
    picture = torch.rand(2, 3, 96, 96, requires_grad=True)
    assert not frozen.teacher.expression(picture).requires_grad


@pytest.mark.parametrize(
    ("shape", "more", "says"),
    [
        (["B", 1, 32, 32], {}, r"takes \[\['B', 1, 32, 32\]\] and gives"),
        (["B", 3, 32, 48], {}, "takes"),
        (["B", 3, "h", "w"], {}, "takes"),
        ([4, 3, 32, 32], {}, "takes"),
        (["B", 3, 32], {}, "takes"),
        (["B", 3, 32, 32], {"kind": TensorProto.FLOAT16}, "takes"),
        (["B", 3, 32, 32], {"outputs": 2}, "takes"),
        (["B", 3, 32, 32], {"gain": np.nan}, r"gives \[2, 3, 2, 2\] of 2 grey faces, or what is not finite"),
        (["B", 3, 32, 32], {"reshaped": (1, 12)}, "fails on 2 grey faces: "),
        (["B", 3, 32, 32], {"reshaped": (-1,)}, r"gives \[24\] of 2 grey faces"),
    ],
)
def test_a_graph_of_other_shapes_is_one_sentence(shape: Shape, more: dict, says: str, tmp_path: Path) -> None:
    path = write_graph(tmp_path / "x.onnx", shape, **more)
    with pytest.raises(UserError, match=rf"^--expression .*x\.onnx: {says}.*; an ONNX graph is needed with one input, a face float32"):
        chain.main(data=tmp_path, work=tmp_path / "work", expression=path)
    assert not (tmp_path / "work").exists()


def test_a_file_that_is_no_graph_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    for path, says in ((tmp_path / "x.onnx", "ONNX Runtime cannot load it: .*"), (tmp_path / "nowhere.onnx", "no such file")):
        with pytest.raises(UserError, match=rf"^--expression {path}: {says}; an ONNX graph is needed"):
            lips_teacher.main(tmp_path, tmp_path, "nano", expression=path)
