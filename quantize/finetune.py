"""Quantisation-aware fine-tuning: editor and decoder learn to give their own fp32 pictures while their layers round to 8 bits.

For what calibration alone cannot hold. Weights round per channel and activations to static ranges, as in the finished graph; gradients
pass the rounding as if it were not there (straight-through: Bengio et al. 2013). Nothing but the calibration set is learned from, and
nothing but the networks' own pictures is the truth, so the step is small and the networks stay what they are.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import trange

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.errors import UserError
from flashlips_edge.models.networks import networks
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training import export
from flashlips_edge.training.boxes import LIPS
from flashlips_edge.training.checkpoint import load_weights, save_weights
from quantize.graph import Feed

RATE = 5e-6  # falls to zero; Adam moves every weight by as much, and a step of rounding is some 5e-4
LIPS_NOISE = 0.1  # of a lips vector's deviation: the set is small
LIPS_WEIGHT = 4.0  # of the mouth box beside the whole picture
LAYERS = (nn.Conv2d, nn.Linear)


class _RoundedWeight(nn.Module):
    """A weight [out, ...] rounded to whole numbers of at most ``most``, a scale for each output."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-8) / self.most
        return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -self.most, self.most)


class _RoundedInput:
    """A hook before a layer: first it watches the range of what comes in, then it rounds that to uint8 within the range."""

    def __init__(self) -> None:
        self.low, self.high, self.watching = 0.0, 0.0, True

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        if self.watching:
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
            return inputs
        scale = max(self.high - self.low, 1e-8) / 255
        return torch.fake_quantize_per_tensor_affine(x, scale, round(-self.low / scale), 0, 255), *rest


def finetune(bundle: Bundle, weights: Path, feeds: list[Feed], steps: int, out: Path, most: int) -> Bundle:
    """Write the bundle ``out`` of the weights after ``steps``; ``feeds`` are the editor's inputs, ``most`` the largest rounded weight.

    UserError where the folder ``weights`` does not hold what the bundle was made from."""
    preset = load_preset(bundle.preset)
    teacher = export.load_graphs(preset, weights)
    truth = _Pictures(teacher["editor"], teacher["latent_decoder"], preset["editor"]["rows"][0])
    batches = [tuple(torch.from_numpy(feed[name]) for name in ("latent", "reference_latents", "lips")) for feed in feeds]
    _check(bundle, truth, feeds)
    return _export(bundle, weights, learn(truth, batches, steps, most), out)


def learn(truth: nn.Module, batches: list[tuple[Tensor, ...]], steps: int, most: int) -> nn.Module:
    """A copy of ``truth`` that, once its layers round, gives nearly what ``truth`` gives; the last of a batch are the lips."""
    student = copy.deepcopy(truth).requires_grad_(True)
    round_layers(student, batches, most)
    optimiser = torch.optim.Adam([parameter for parameter in student.parameters() if parameter.requires_grad], RATE)
    fall = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1e-3, steps)
    random = torch.Generator().manual_seed(0)
    for _ in trange(steps, desc="fine-tuning", leave=False):
        *latents, lips = batches[int(torch.randint(len(batches), (1,), generator=random))]
        lips = lips + LIPS_NOISE * torch.randn(lips.shape, generator=random)
        with torch.no_grad():
            wanted = truth(*latents, lips)
        given = student(*latents, lips)
        loss = nn.functional.mse_loss(given, wanted) + LIPS_WEIGHT * nn.functional.mse_loss(LIPS.cut(given), LIPS.cut(wanted))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        fall.step()
    return _whole(student)


class _Pictures(nn.Module):
    """Editor and decoder in a row; only the rows that the editor changes are decoded: [B, 3, rows, S]."""

    def __init__(self, editor: nn.Module, decoder: nn.Module, first_row: int) -> None:
        super().__init__()
        self.editor, self.decoder, self.first_row = editor, decoder, first_row

    def forward(self, latent: Tensor, references: Tensor, lips: Tensor) -> Tensor:
        return self.decoder(self.editor(latent, references, lips)[:, :, self.first_row :])


def round_layers(student: nn.Module, batches: list[tuple[Tensor, ...]], most: int) -> None:
    """Make every convolution and product round its weight and its input, within the range that the batches show."""
    hooks = []
    for module in [module for module in student.modules() if isinstance(module, LAYERS)]:
        parametrize.register_parametrization(module, "weight", _RoundedWeight(most))
        hooks.append(_RoundedInput())
        module.register_forward_pre_hook(hooks[-1])
    with torch.no_grad():
        for batch in batches:
            student(*batch)
    for hook in hooks:
        hook.watching = False


def _whole(student: nn.Module) -> nn.Module:
    """The student without rounding, with the weights that were rounded."""
    for module in student.modules():
        if parametrize.is_parametrized(module):
            original = module.parametrizations.weight.original.detach().clone()  # type: ignore[union-attr]
            parametrize.remove_parametrizations(module, "weight")
            module.weight.data = original  # type: ignore[union-attr]
            module._forward_pre_hooks.clear()
    return student


def _check(bundle: Bundle, truth: _Pictures, feeds: list[Feed]) -> None:
    edited = OnnxRuntimeEngine(bundle.graph_path("editor")).run(feeds[0])["edited_latent"]
    with torch.no_grad():
        own = truth.editor(*(torch.from_numpy(feeds[0][name]) for name in ("latent", "reference_latents", "lips")))
    if not torch.allclose(own, torch.from_numpy(edited), atol=1e-2):
        raise UserError(f"--finetune: bundle {bundle.folder} was not made from the weights in weights/{bundle.preset}")


def _export(bundle: Bundle, weights: Path, student: nn.Module, out: Path) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        tuned = Path(folder)
        for path in (*weights.glob("*.safetensors"), weights / "lips.json"):
            shutil.copyfile(path, tuned / path.name)
        autoencoder = networks(load_preset(bundle.preset))["autoencoder"]
        load_weights(weights / "autoencoder.safetensors", autoencoder)
        autoencoder.decoder.load_state_dict(student.decoder.state_dict())  # type: ignore[union-attr,operator]
        save_weights(tuned / "autoencoder.safetensors", autoencoder)
        save_weights(tuned / "editor.safetensors", student.editor)
        export.export(bundle.preset, tuned, out, weights / "MODEL_CARD.md")
    return Bundle.open(out)
