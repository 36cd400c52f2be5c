"""The networks have the sizes that their presets promise, change what they may change, and start as they should."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.__main__ import main  # noqa: E402
from flashlips_edge.models.audio_to_lips import AudioToLips  # noqa: E402
from flashlips_edge.models.editor import Editor, EditorUNet  # noqa: E402
from flashlips_edge.models.editor_transformer import EditorTransformer  # noqa: E402
from flashlips_edge.models.layers import AdaLN, Attention, AttentionBlock, GroupNormSiLU, LipsConv  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder, LipsTeacher, ProjectedExpression  # noqa: E402
from flashlips_edge.models.networks import examples  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.models.references import ReferenceAttention  # noqa: E402

NANO = load_preset("nano")
FRAME = ("latent_encoder", "editor", "latent_decoder")
SMALL = {"latent_channels": 4, "size": (8, 8), "rows": (4, 8), "reference_width": 8, "embedding": 16}
EDITORS = {
    "unet": lambda **sizes: EditorUNet(**SMALL, widths=[16, 32], blocks=[1, 2], **sizes),
    "unet with attention": lambda **sizes: EditorUNet(**SMALL, widths=[16, 32], blocks=[1, 2], heads=[0, 2], recall=True, **sizes),
    "transformer": lambda **sizes: EditorTransformer(**SMALL, stem_width=16, patch=2, width=32, layers=2, heads=2, recall=True, **sizes),
}


def small_inputs(references: int = 4) -> tuple[torch.Tensor, ...]:
    """latent, reference_latents and lips for the small editors."""
    return torch.randn(2, 4, 8, 8), torch.randn(2, 4 * references, 8, 8), torch.randn(2, 12)


def trained(editor: Editor) -> Editor:
    """The editor with no weight at nought, as after training."""
    for parameter in editor.parameters():
        nn.init.normal_(parameter, std=0.1)
    return editor


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, tuple[float, float]]]:
    """What python -m flashlips_edge.models prints: preset -> network -> million parameters and GFLOP."""
    with redirect_stdout(io.StringIO()) as printed:
        main([])
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for line in printed.getvalue().splitlines():
        words = line.split()
        if not line.startswith(" "):
            preset = rows.setdefault(words[0].rstrip(":"), {})
        elif words[0] != "network":
            preset[words[0]] = float(words[1].removesuffix("M")), float(words[2])
    return rows


def test_paper_has_the_paper_s_sizes_and_the_presets_are_sizes_of_the_same_networks(table) -> None:  # type: ignore[no-untyped-def]
    assert set(table) == {"nano", "edge", "paper"}
    assert len({tuple(sorted(networks)) for networks in table.values()}) == 1
    for network, stated in {"editor": 250, "editor_transformer": 300, "audio_to_lips": 150}.items():
        assert abs(table["paper"][network][0] - stated) <= 0.05 * stated, network


def test_nano_costs_at_most_4_gflop_a_frame_and_edge_at_most_16(table) -> None:  # type: ignore[no-untyped-def]
    nano, edge = ({name: gflop for name, (_, gflop) in table[preset].items()} for preset in ("nano", "edge"))
    assert 0 < nano["latent_encoder"] + nano["latent_decoder"] <= 2.7
    assert sum(nano[name] for name in FRAME) <= 4.0
    assert sum(edge[name] for name in FRAME) <= 16.0
    assert (nano["speech_encoder"] + nano["audio_to_lips"]) / NANO["audio_to_lips"]["window"] <= 0.2


@pytest.mark.parametrize("references", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", EDITORS)
def test_a_new_editor_changes_nothing_and_never_the_rows_above_the_mouth(kind: str, references: int) -> None:
    editor = EDITORS[kind](references=references)
    latent, reference_latents, lips = small_inputs(references)
    assert torch.equal(editor(latent, reference_latents, lips), latent)
    trained(editor)
    edited = editor(latent, reference_latents, lips)
    assert torch.equal(edited[:, :, :4], latent[:, :, :4])
    assert not torch.allclose(edited[:, :, 4:], latent[:, :, 4:])
    assert not torch.allclose(edited, editor(latent, reference_latents, lips + 1)), "the lips vector has no effect"
    assert not torch.allclose(edited, editor(latent, reference_latents + 1, lips)), "the references have no effect"


def test_recall_and_attention_start_without_effect() -> None:
    """So that they can be added to an editor that is trained."""
    inputs = small_inputs()
    plain = EDITORS["unet"](references=4)
    larger = EDITORS["unet"](references=4, recall=True)
    nn.init.normal_(plain.residual.weight)
    missing = larger.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("recall.") for name in missing)
    assert torch.equal(plain(*inputs), larger(*inputs))
    x = torch.randn(2, 16, 5, 3)
    block = AttentionBlock(16, 2)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kind", EDITORS)
def test_where_the_mouth_is_hidden_a_reference_s_own_may_be_copied(kind: str) -> None:
    editor, inputs = EDITORS[kind](references=4, hidden=(5, 7, 2, 6), copies=True), small_inputs()
    latent, reference_latents, _ = inputs
    shown = torch.ones(8, 8)
    shown[5:7, 2:6] = 0
    assert torch.equal(editor(*inputs), latent * shown), "at first nothing is copied"
    with torch.no_grad():
        editor.copies.bias.copy_(torch.tensor([0.75, 0.0, 0.25, 0.0]))
    first, _, third, _ = reference_latents.chunk(4, 1)
    assert torch.allclose(editor(*inputs), latent * shown + (0.75 * first + 0.25 * third) * (1 - shown), atol=1e-6)
    with pytest.raises(ValueError, match="copies: only where hidden cells are given"):
        EDITORS[kind](references=4, copies=True)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), channels=st.integers(1, 5), height=st.integers(1, 7), width=st.integers(1, 7))
def test_the_layers_are_their_formulas(batch: int, channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x, lips = torch.randn(batch, 8 * channels, height, width), torch.randn(batch, 12)
    scale, shift = torch.randn(2, batch, 8 * channels)
    norm = GroupNormSiLU(8, 8 * channels)
    if channels * height * width > 1:
        groups = x.reshape(batch, 8, -1)
        normed = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        modulated = normed.reshape(x.shape) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        assert torch.allclose(norm(x, scale, shift), modulated * modulated.sigmoid(), atol=1e-4)
        assert torch.allclose(norm(x), nn.functional.silu(normed.reshape(x.shape)), atol=1e-4)
    conv = LipsConv(8 * channels, 3)
    by_hand = nn.functional.conv2d(x, conv.weight[:, :-12], conv.bias, padding=1)
    for i in range(12):
        constant = lips[:, i, None, None, None].expand(-1, 1, height, width)
        by_hand = by_hand + nn.functional.conv2d(constant, conv.weight[:, i - 12, None], padding=1)
    assert torch.allclose(conv(x, lips), by_hand, atol=1e-4)


def test_adaln_adds_the_gated_branch_before_it_normalises() -> None:
    x, scale, shift, branch, gate = torch.randn(5, 2, 3, 16)
    unit = AdaLN(16)
    for branches in ((), (branch, gate)):
        total = x + gate * branch if branches else x
        normed = (total - total.mean(2, keepdim=True)) / (total.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        given_total, given_normed = unit(x, scale, shift, *branches)
        assert torch.equal(given_total, total)
        assert torch.allclose(given_normed, normed * (1 + scale) + shift, atol=1e-5)


def test_attention_is_softmax_of_the_heads_products() -> None:
    attention, x = Attention(16, 2), torch.randn(2, 5, 16)
    q, k, v = attention.qkv(x).chunk(3, 2)
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5).softmax(2)
        heads.append(weights @ v[..., part])
    assert torch.allclose(attention(x), attention.project(torch.cat(heads, 2)), atol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_one_step_is_guidance_by_hand(solver: str) -> None:
    torch.manual_seed(0)
    flow = AudioToLips(**{**NANO["audio_to_lips"], "steps": 1, "guidance": 3.0, "solver": solver}).eval()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.05)
    inputs = examples(NANO)["audio_to_lips"]
    references, previous = inputs["reference_lips"], inputs["previous_lips"]

    def velocity(z: torch.Tensor, time: float) -> torch.Tensor:
        both = []
        for keep in (torch.ones(2), torch.zeros(2)):
            before, condition = flow.context(inputs["speech"], inputs["emotion"], references, previous, keep, torch.ones(2))
            both.append(flow.field(z, torch.full((2,), time), before, condition))
        heard, unheard = both
        return unheard + 3.0 * (heard - unheard)

    noise = inputs["noise"]
    step = velocity(noise, 0.0)
    if solver == "midpoint":
        step = velocity(noise + step / 2, 0.5)
    assert torch.allclose(flow(**inputs), flow.absolute(noise + step, references), atol=1e-5)


def test_a_solver_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="solver 'heun' is not one of euler, midpoint"):
        AudioToLips(**{**NANO["audio_to_lips"], "solver": "heun"})


def test_lips_of_a_shifted_face_are_shifted_alike() -> None:
    torch.manual_seed(0)
    flow = AudioToLips(**NANO["audio_to_lips"]).eval()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.05)
    inputs = examples(NANO)["audio_to_lips"]
    shift = torch.randn(12)
    moved = {**inputs, "reference_lips": inputs["reference_lips"] + shift, "previous_lips": inputs["previous_lips"] + shift}
    assert torch.allclose(flow(**moved), flow(**inputs) + shift, atol=1e-4)


@pytest.mark.parametrize("size", [64, 96])
def test_the_residual_student_takes_a_whole_face_of_any_size(size: int) -> None:
    assert LipsEncoder(width=8, face_size=size, blocks=[1, 1, 1, 1])(torch.rand(2, 3, size, size)).shape == (2, 12)


def test_a_given_expression_encoder_stays_as_it_is_and_its_projector_learns() -> None:
    given_encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 20), nn.Dropout(0.5))
    teacher = LipsTeacher(width=8, expression=ProjectedExpression(given_encoder, features=20)).train()
    face, mouth = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 64, 64)
    lips = teacher(face, mouth)
    assert torch.equal(lips, teacher(face, mouth)), "the dropout of a frozen encoder is at work"
    lips.sum().backward()
    learned = {name for name, parameter in teacher.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith("expression.encoder") for name in learned)
    assert {"expression.projector.0.weight", "mouth.out.weight"} <= learned


def test_a_preset_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean nano"):
        load_preset("nan0")


@pytest.mark.parametrize("kind", EDITORS)
def test_the_old_mouth_leaves_no_trace(kind: str) -> None:
    """Two frames that differ in the hidden cells alone are edited to the same frame."""
    editor = EDITORS[kind](references=4, hidden=(5, 7, 2, 6))
    trained(editor)
    latent, reference_latents, lips = small_inputs()
    other = latent.clone()
    other[:, :, 5:7, 2:6] += 3
    assert torch.equal(editor(latent, reference_latents, lips), editor(other, reference_latents, lips))
    other[:, :, 4] += 3
    assert not torch.equal(editor(latent, reference_latents, lips), editor(other, reference_latents, lips))


def test_references_are_looked_through_within_the_box_only() -> None:
    torch.manual_seed(0)
    attention = ReferenceAttention(16, 8, (2, 6, 1, 5))
    torch.nn.init.normal_(attention.out.weight)
    x, references = torch.randn(1, 16, 8, 8), torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        change = attention(x, references) - x
        outside = references.clone()
        outside[..., :2, :], outside[..., 5:] = 9.0, -9.0
        torch.testing.assert_close(attention(x, outside) - x, change)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 1:5] = True
    assert (change[..., ~inside] == 0).all() and (change[..., inside] != 0).any()
