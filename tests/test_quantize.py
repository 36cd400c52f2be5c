"""The parts of quantize: graphs are folded and rearranged without changing what they say, Q/DQ lands where the engines want it, ranges
and the assignment of precisions keep their promises, and what is broken is refused in one sentence."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from kernels.table import names
from quantize import finetune, folding, graph, layers, layout, lips, policy, qdq, ranges, rtx, targets
from quantize.answers import Answers, Quality, compare
from quantize.layers import Layer
from quantize.sensitivity import Damage

PICTURES = ("latent_encoder", "editor", "latent_decoder", "lips_encoder", "audio_to_lips")


def run(model: onnx.ModelProto, feed: graph.Feed, fused: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fused else "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def kernels(model: onnx.ModelProto, folder: Path) -> list[str]:
    """The operations that ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def batch(feed: graph.Feed, size: int) -> graph.Feed:
    """The feed's first picture ``size`` times, each a little different."""
    repeated = {name: np.repeat(array[:1], size, axis=0) for name, array in feed.items()}
    return {
        name: array * (1 - 0.1 * np.arange(size, dtype=np.float32).reshape(-1, *[1] * (array.ndim - 1))) for name, array in repeated.items()
    }


def small() -> tuple[onnx.ModelProto, graph.Feed]:
    """Two convolutions with a SiLU between them."""
    random = np.random.default_rng(0)
    weights = {
        "first.weight": random.normal(size=(16, 3, 3, 3)) * np.logspace(-1, 0, 16).reshape(-1, 1, 1, 1),
        "first.bias": random.normal(size=16),
        "second.weight": random.normal(size=(8, 16, 3, 3)) / 12,
        "second.bias": random.normal(size=8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["hidden"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["hidden"], ["gate"]),
        helper.make_node("Mul", ["hidden", "gate"], ["active"]),
        helper.make_node("Conv", ["active", "second.weight", "second.bias"], ["y"], pads=[1, 1, 1, 1]),
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, 24, 24]) for name, channels in (("x", 3), ("y", 8))]
    model = helper.make_model(
        helper.make_graph(nodes, "small", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    return model, {"x": random.normal(size=(2, 3, 24, 24)).astype(np.float32)}


def quantised(form: str, fused: bool, rule: str = "max") -> tuple[onnx.ModelProto, onnx.ModelProto, graph.Feed]:
    model, feed = small()
    nodes = {"hidden", "y"}
    found = ranges.collect("small", model, qdq.tensors_of(model, nodes, fused), [feed])
    chosen = {name: ranges.choose(histogram, rule, symmetric=not fused) for name, histogram in found.items()}
    return model, qdq.insert(model, nodes, chosen, form, fused), feed


def decibels(given: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.square(truth).mean() / np.square(given - truth).mean()))


@pytest.mark.parametrize("name", PICTURES)
def test_a_rearranged_graph_says_what_it_said_at_any_batch(name: str) -> None:
    bundle = Bundle.open("nano")
    feed = bundle.golden(name)[0]
    before = graph.load(str(bundle.graph_path(name)), name)
    after = copy.deepcopy(before)
    if not graph.has_free_axes(after):
        folding.fold(after, feed)
    layout.rearrange(after, {key: array[:1] for key, array in feed.items()})
    onnx.checker.check_model(after, full_check=True)
    assert len(after.graph.node) < len(before.graph.node) + 20  # a shuffle becomes five nodes
    for size in (1, 3):
        truth = run(before, batch(feed, size))
        assert np.abs(run(after, batch(feed, size)) - truth).max() <= 1e-5 * np.abs(truth).max()


def test_a_picture_enters_the_first_convolution_with_its_own_256_levels() -> None:
    bundle = Bundle.open("nano")
    feed = {key: array[:1] for key, array in bundle.golden("lips_encoder")[0].items()}
    model = graph.load(str(bundle.graph_path("lips_encoder")), "lips_encoder")
    folding.fold(model, feed)
    layout.rearrange(model, feed)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    entered = graph.Probe(model, [first.input[0]]).run(feed)[first.input[0]]
    assert entered.shape[1] % 4 == 0 and entered.min() >= 0 and entered.max() <= 1


def test_products_of_a_sequence_take_their_biases_into_8_bit_kernels(tmp_path: Path) -> None:
    bundle = Bundle.open("nano")
    feed = {key: array[:1] for key, array in bundle.golden("audio_to_lips")[0].items()}
    model = graph.load(str(bundle.graph_path("audio_to_lips")), "audio_to_lips")
    folding.fold(model, feed)
    layout.rearrange(model, feed)
    nodes = {node for layer in layers.layers_of("audio_to_lips", model, feed)[0] for node in layer.nodes}
    found = ranges.collect("audio_to_lips", model, qdq.tensors_of(model, nodes, True), [feed])
    low = qdq.insert(model, nodes, {name: ranges.choose(h, "max", False) for name, h in found.items()}, "int8", True)
    onnx.checker.check_model(low, full_check=True)
    assert kernels(low, tmp_path).count("QGemm") == len(nodes)


def test_a_channel_of_no_weight_keeps_its_bias() -> None:
    model, feed = small()
    weight, bias = (next(t for t in model.graph.initializer if t.name == f"second.{kind}") for kind in ("weight", "bias"))
    array = numpy_helper.to_array(weight).copy()
    array[0], array[1] = 0, 1e-8
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    bias.CopyFrom(numpy_helper.from_array(np.full(8, 0.5, np.float32), bias.name))
    found = ranges.collect("small", model, qdq.tensors_of(model, {"y"}, True), [feed])
    low = qdq.insert(model, {"y"}, {name: ranges.choose(histogram, "max", False) for name, histogram in found.items()}, "int8", True)
    assert np.abs(run(low, feed)[:, :2] - 0.5).max() < 0.05


def test_what_is_no_number_is_the_worst_there_is() -> None:
    """An overflow in one frame must not look like no loss at all."""
    mouths, lips, spoken = np.zeros((3, 4, 4, 3)), np.ones((3, 12)), np.random.default_rng(0).random((1, 50, 12))
    truth = Answers(mouths, lips, spoken)
    assert policy.Budget().holds(compare(truth, truth, np.ones(12)))
    for bad in (np.nan, np.inf):
        spoiled = [array.copy() for array in (mouths, lips, spoken)]
        for array in spoiled:
            array[-1, -1] = bad
        quality = compare(Answers(*spoiled), truth, np.ones(12))
        assert quality == Quality(0.0, 0.0, -1.0, -1.0, -1.0) and not policy.Budget().holds(quality)
        assert Damage.of(quality).picture > 1e4 and Damage.of(quality).lips == Damage.of(quality).spoken == 2


def test_a_silu_behind_an_8_bit_convolution_is_one_step(tmp_path: Path) -> None:
    found = kernels(quantised("int8", fused=True)[1], tmp_path)
    assert "QuickGelu" in found and "Sigmoid" not in found


def test_the_decoder_still_takes_any_number_of_rows() -> None:
    bundle = Bundle.open("nano")
    before = graph.load(str(bundle.graph_path("latent_decoder")), "latent_decoder")
    after = copy.deepcopy(before)
    whole = bundle.golden("latent_decoder")[0]
    layout.rearrange(after, whole)
    part = {name: array[:, :, 7:] for name, array in whole.items()}
    assert np.abs(run(after, part) - run(before, part)).max() < 1e-5


@pytest.mark.parametrize(("form", "fused", "least"), [("int8", True, 32), ("int8", False, 32), ("fp8", False, 26)])
def test_a_quantised_graph_is_near_the_whole_one_and_standard_onnx(form: str, fused: bool, least: float) -> None:
    model, low, feed = quantised(form, fused)
    onnx.checker.check_model(low, full_check=True)
    assert {node.domain for node in low.graph.node} == {""}
    assert decibels(run(low, feed, fused), run(model, feed)) > least


def test_onnx_runtime_takes_every_layer_of_the_cpu_s_graph_into_its_8_bit_kernels(tmp_path: Path) -> None:
    found = kernels(quantised("int8", fused=True)[1], tmp_path)
    assert found.count("QLinearConv") == 2 and "Conv" not in found


def test_sums_of_8_bit_products_fit_into_16_bits_on_any_processor() -> None:
    model, feed = small()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight"):
            tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), 0.3, np.float32), tensor.name))
    feed = {"x": np.full_like(feed["x"], 2.0)}  # every product is the largest that there is, all of one sign
    found = ranges.collect("small", model, qdq.tensors_of(model, {"hidden", "y"}, True), [feed])
    low = qdq.insert(model, {"hidden", "y"}, {name: ranges.choose(h, "max", False) for name, h in found.items()}, "int8", True)
    truth = run(model, feed)
    assert np.abs(run(low, feed) - truth).max() <= 0.01 * np.abs(truth).max()


def test_shipped_8_bit_weights_are_such_as_any_processor_can_sum() -> None:
    bundle = Bundle.open("nano-int8")
    for name in bundle.manifest["graphs"]:
        tensors = graph.constants(onnx.load(bundle.graph_path(name)))
        weights = [graph.value(tensors, key) for key, tensor in tensors.items() if tensor.data_type == TensorProto.INT8]
        assert all(np.abs(weight.astype(int)).max() <= 64 for weight in weights), name


def test_weights_have_a_scale_for_each_channel_and_take_a_byte_each() -> None:
    tensors = graph.constants(quantised("int8", fused=True)[1])
    assert tensors["first.weight_scale"].dims == [16]
    assert tensors["first.weight_quantised"].data_type == TensorProto.INT8
    assert "first.weight" not in tensors


def test_what_tensorrt_refuses_is_not_in_its_graphs() -> None:
    """No int32 biases behind Q/DQ, nothing asymmetric."""
    tensors = graph.constants(quantised("int8", fused=False)[1])
    assert not any(name.startswith("first.bias_") for name in tensors)
    assert all(not graph.value(tensors, name).any() for name in tensors if name.endswith("_zero"))


def test_only_the_layers_that_were_asked_for_go_low() -> None:
    model, feed = small()
    found = ranges.collect("small", model, qdq.tensors_of(model, {"y"}, True), [feed])
    low = qdq.insert(model, {"y"}, {name: ranges.choose(h, "max", False) for name, h in found.items()}, "int8", True)
    assert "first.weight" in graph.constants(low) and "second.weight" not in graph.constants(low)


@given(seed=st.integers(0, 99), rule=st.sampled_from(ranges.RULES), symmetric=st.booleans(), skew=st.floats(-2, 2))
def test_a_range_lies_inside_what_was_seen_and_holds_zero(seed: int, rule: str, symmetric: bool, skew: float) -> None:
    values = np.random.default_rng(seed).standard_t(4, 4000) + skew
    low, high = min(0.0, values.min()), max(0.0, values.max())
    histogram = ranges.Histogram(low, high, np.histogram(values, ranges.BINS, (low, high))[0])
    chosen = ranges.choose(histogram, rule, symmetric)
    assert chosen[0] <= 0 <= chosen[1] and chosen[1] > chosen[0]
    assert not symmetric or chosen[0] == -chosen[1]
    largest = max(-low, high)
    assert -largest - 1e-9 <= chosen[0] and chosen[1] <= largest + 1e-9


def test_one_outlier_does_not_set_the_range() -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 300.0)
    histogram = ranges.Histogram(values.min(), 300.0, np.histogram(values, ranges.BINS, (values.min(), 300.0))[0])
    assert ranges.choose(histogram, "max", False)[1] == 300
    assert ranges.choose(histogram, "percentile", False)[1] < 10


@pytest.mark.parametrize(
    ("broken", "words"), [(np.nan, "the range of hidden holds a NaN"), (np.inf, "the range of hidden holds an infinity")]
)
def test_weights_that_are_not_numbers_are_named(broken: float, words: str) -> None:
    model, feed = small()
    bias = graph.value(graph.constants(model), "first.bias")
    bias[3] = broken
    graph.set_constants(model, {"first.bias": bias})
    with pytest.raises(UserError, match=words):
        ranges.collect("small", model, ["x", "hidden"], [feed])


def test_a_layer_that_nothing_comes_through_is_named() -> None:
    model, feed = small()
    with pytest.raises(UserError, match="the range of x is zero"):
        ranges.collect("small", model, ["x", "hidden"], [{"x": np.zeros_like(feed["x"])}])


def test_an_unknown_operation_is_named(tmp_path: Path) -> None:
    model, _ = small()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "someone"
    onnx.save(model, tmp_path / "editor.onnx")
    with pytest.raises(UserError, match="graph editor: the operation Mystery of someone is unknown"):
        graph.load(str(tmp_path / "editor.onnx"), "editor")


def test_layers_are_named_and_counted() -> None:
    model, feed = small()
    found, total = layers.layers_of("small", model, {"x": feed["x"][:1]})
    assert [layer.name for layer in found] == ["first", "second"]
    assert [layer.flops for layer in found] == [2 * 24 * 24 * 16 * 27, 2 * 24 * 24 * 8 * 144]
    assert total == sum(layer.flops for layer in found)
    assert [layer.weights for layer in found] == [16 * 27, 8 * 144]


DAMAGE = st.builds(Damage, *[st.floats(0, 2, allow_subnormal=False)] * 3)


@given(damages=st.lists(DAMAGE, min_size=1, max_size=12), savings=st.lists(st.floats(0.1, 10), min_size=12, max_size=12))
def test_an_assignment_stays_within_its_allowance(damages: list[Damage], savings: list[float]) -> None:
    every = {Layer("editor", str(i), (), 1, 1): damage for i, damage in enumerate(damages)}
    low = policy.cheapest(every, dict(zip(every, savings)), Damage(3, 3, 3))
    for part in ("picture", "lips", "spoken"):
        assert sum(getattr(every[layer], part) for layer in low) <= 3 + 1e-9
    for layer in set(every) - low:  # nothing is left out that would have fitted
        sums = [sum(getattr(every[each], part) for each in low | {layer}) for part in ("picture", "lips", "spoken")]
        assert max(sums) > 3 - 1e-9


def test_of_two_layers_that_cost_alike_the_one_that_saves_more_goes_low() -> None:
    slow, quick = (Layer("editor", name, (), 1, 1) for name in ("slow", "quick"))
    assert policy.cheapest({slow: Damage(2, 0, 0), quick: Damage(2, 0, 0)}, {slow: 9.0, quick: 1.0}, Damage(3, 1, 1)) == {slow}


class Planted:
    """A lips encoder of ten layers of which some cost the lips of two frames, by rule and layer, what is planted. Each takes a byte of
    40 when low and 4 when high."""

    target = targets.TARGETS["orin"]

    def __init__(self, costs: dict[str, dict[str, tuple[float, float]]], flops: dict[str, int] | None = None) -> None:
        self.layers = [Layer("lips_encoder", name, (), (flops or {}).get(name, 100), 100) for name in "abcdefghij"]
        self.rules, self.tries, self._costs = {"lips_encoder": "max"}, tuple(costs), costs

    def share(self, _: str, low: frozenset[Layer]) -> float:
        return sum(layer.flops for layer in low) / sum(layer.flops for layer in self.layers)

    def size(self, _: str, low: frozenset[Layer]) -> float:
        return (40 - 3 * len(low)) / 40

    def lips(self, low: frozenset[Layer], rule: str) -> float:
        return 1 - max(sum(self._costs[rule].get(layer.name, (0, 0))[frame] for layer in low) for frame in (0, 1))


def high(bench: Planted, low: set[Layer] | frozenset[Layer]) -> set[str]:
    return {layer.name for layer in bench.layers} - {layer.name for layer in low}


def test_lips_layers_are_measured_together_since_their_worst_frames_differ() -> None:
    """The sums would keep a and c high, the worst alone; b alone is enough, for a and c fall in different frames."""
    costs = {"a": (8e-4, 0.0), "b": (4e-4, 4e-4), "c": (0.0, 7e-4)}
    bench, budget = Planted({"max": costs}, {"b": 90}), policy.Budget()
    alone = {layer: Damage(0, max(costs.get(layer.name, (0, 0))), 0) for layer in bench.layers}
    savings = {layer: bench.target.saving(layer.flops, layer.weights) for layer in bench.layers}
    assert high(bench, policy.cheapest(alone, savings, budget.allowed())) == {"a", "c"}
    chosen = lips.choose(bench, budget)
    assert high(bench, chosen.low) == {"b"} and chosen.lips == pytest.approx(0.9992)


def test_another_rule_for_ranges_may_spare_all_of_the_lips_layers() -> None:
    chosen = lips.choose(Planted({"max": {"a": (12e-4, 0.0)}, "square": {"a": (9e-4, 0.0)}}), policy.Budget())
    assert len(chosen.low) == 10 and chosen.rule == "square"


def test_lips_that_no_choice_of_share_and_size_holds_are_the_nearest_and_told() -> None:
    """a would do it, and is a quarter of the operations; two layers would do it, and are too large."""
    bench, budget = Planted({"max": {"a": (15e-4, 0.0), "b": (4e-4, 0.0), "c": (1e-4, 0.0)}}, {"a": 300}), policy.Budget()
    chosen = lips.choose(bench, budget)
    assert high(bench, chosen.low) == {"b"} and chosen.lips == pytest.approx(0.9984)
    told = policy.missed(bench, set(chosen.low), budget, Quality(50, 45, chosen.lips, 1, 1))
    assert told == ["lips_encoder: least cosine 0.99840, wanted 0.999; nothing that keeps share and size is nearer"]


@pytest.mark.parametrize(
    ("target", "form", "words"),
    [
        ("orin", "fp8", "--format fp8: target orin .*sm_87.* does not compute in it; it takes int8"),
        ("cpu", "fp8", "--format fp8: target cpu"),
        ("orinn", None, "--target 'orinn' is not one of ada, .*; did you mean orin"),
    ],
)
def test_a_target_is_not_given_what_it_cannot_do(target: str, form: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        targets.find(target, form)


def test_fine_tuning_brings_a_rounding_network_nearer_to_itself() -> None:
    torch.manual_seed(0)
    truth = Painter().eval().requires_grad_(False)
    truth.first.weight[:, 0, 0, 0] = 6  # the one large weight of a channel makes its steps coarse
    batches = [(torch.randn(2, 3, 40, 40), torch.randn(2, 12)) for _ in range(4)]

    def error(network: nn.Module) -> float:
        rounding = copy.deepcopy(network)
        finetune.round_layers(rounding, batches, 64)
        with torch.no_grad():
            return float(torch.stack([nn.functional.mse_loss(rounding(*batch), truth(*batch)) for batch in batches]).mean())

    tuned = finetune.learn(truth, batches, 80, 64)
    assert tuned.state_dict().keys() == truth.state_dict().keys()
    assert error(tuned) < 0.99 * error(truth)


class Painter(nn.Module):
    """A picture [B, 3, 40, 40] and lips [B, 12] to a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lips, self.first, self.second = nn.Linear(12, 8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, picture: torch.Tensor, lips: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.silu(self.first(picture) + self.lips(lips)[:, :, None, None]))


@pytest.mark.parametrize("name", ["latent_encoder", "editor", "latent_decoder", "lips_encoder"])
@pytest.mark.parametrize(("target", "form"), [("orin", "int8"), ("datacentre", "fp8")])
def test_tensorrt_builds_what_is_made_for_it(target: str, form: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install '.[quantize]'")
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed: pip install '.[quantize]'")
    from quantize import fp16

    bundle = Bundle.open("nano")
    feed = {key: array[:1] for key, array in bundle.golden(name)[0].items()}
    model = graph.load(str(bundle.graph_path(name)), name)
    if not graph.has_free_axes(model):
        folding.fold(model, feed)
    nodes = {node for layer in layers.layers_of(name, model, feed)[0] for node in layer.nodes}
    found = ranges.collect(name, model, qdq.tensors_of(model, nodes, False), [feed])
    low = qdq.insert(model, nodes, {tensor: ranges.choose(h, "max", True) for tensor, h in found.items()}, form, False)
    onnx.save(fp16.convert(low), tmp_path / "low.onnx")
    for capability in rtx.CAPABILITIES[target]:
        assert rtx.build(tmp_path / "low.onnx", capability, {key: array.shape for key, array in feed.items()}) > 0


def test_another_process_writes_the_same_fp16_graph(repo: Path) -> None:
    """AutoCast goes through sets of names, whose order each process draws anew."""
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed: pip install '.[quantize]'")
    path = Bundle.open("nano").graph_path("editor")
    code = "import sys, hashlib, onnx; from quantize import fp16; model = fp16.convert(onnx.load(sys.argv[1]))"
    code += "; onnx.checker.check_model(model); print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())"
    command = [sys.executable, "-c", code, str(path)]
    results = [subprocess.run(command, cwd=repo, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True) for seed in "01"]
    assert [result.returncode for result in results] == [0, 0]
    assert results[0].stdout.splitlines()[-1] == results[1].stdout.splitlines()[-1]


@pytest.mark.parametrize("target", names())
def test_every_device_of_the_table_has_a_format(target: str) -> None:
    found, form = targets.find(target, None)
    assert form in found.formats and found.graphs
    assert found.saving(10**9, 10**6) > 0


def test_tensorrt_refuses_fp8_where_orin_would(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install '.[quantize]'")
    _, low, feed = quantised("fp8", fused=False)
    path = tmp_path / "small.onnx"
    onnx.save(low, path)
    with pytest.raises(UserError, match="TensorRT cannot build it for SM86"):
        rtx.build(path, "SM86", {"x": feed["x"].shape})
