"""Stage 4 of the recipe: the editor together with the lips vector, half by masked reconstruction, half by real pairs.

    python -m flashlips_edge.training.editor --latents work/latents --weights work/nano

The paper trains by masked reconstruction alone and removes the mask by self-refinement afterwards (FlashLips, section 3.2). Half
of our inputs are already unmasked: another frame of the same clip with nearly the same head pose and other lips, which
grid-like footage and the synthetic head have in plenty.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.editor_transformer import EditorTransformer
from flashlips_edge.models.layers import LIPS
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import SDXLDecoder
from flashlips_edge.training.boxes import lower_row
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.expression import ExpressionFile, ExpressionGraph, load_expression, make_teacher
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File, check_terms, feature_networks
from flashlips_edge.training.latents import SdxlFolder, load_autoencoder
from flashlips_edge.training.lips_teacher import TeacherTask
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.losses import LossWeights, ReconstructionLoss, psnr
from flashlips_edge.training.pace import pace
from flashlips_edge.training.pairs import PARAMETERS, Batch, Person, draw, load_people, person_weights
from flashlips_edge.training.views import look

MASKED_SHARE = 0.5
LIPS_NOISE = 0.1  # added to the lips vector in training, so that near vectors mean near lips
TRUE_WEIGHT = 0.5
CHECKED = 24  # frames of each set


class Backbone(str, Enum):
    """Which editor: its key in the preset, and the name of its weights."""

    UNET = "editor"
    TRANSFORMER = "editor_transformer"


BackboneOption = Annotated[Backbone, typer.Option("--backbone", help="the U-Net or the transformer")]


class EditorTask(nn.Module):
    """What this stage trains: the editor, the lips teacher, and a linear probe for the synthetic head's true lips."""

    def __init__(self, preset: dict[str, Any], backbone: Backbone = Backbone.UNET, expression: ExpressionGraph | None = None) -> None:
        super().__init__()
        network = EditorUNet if backbone is Backbone.UNET else EditorTransformer
        self.editor = network(**preset[backbone.value])
        self.teacher = make_teacher(preset, expression)
        self.probe = nn.Linear(LIPS, PARAMETERS)


def start_from_teacher(task: EditorTask, preset: dict[str, Any], weights: Path, expression: ExpressionGraph | None = None) -> None:
    """Teacher and probe as the stage before left them in the folder ``weights``."""
    start = TeacherTask(preset, expression)
    load_weights(weights / "teacher_task.safetensors", start)
    task.teacher.load_state_dict(start.teacher.state_dict())
    task.probe.load_state_dict(start.probe.state_dict())


class LowerDecoder(nn.Module):
    """The frozen latent decoder, of the rows that the editor's losses see: latent [B, C, S/8, S/8] -> picture [B, 3, H, S].

    Our own decoder is spared the rows above; the SDXL VAE's norms and attention see the whole latent.
    """

    def __init__(self, decoder: nn.Module, row: int) -> None:
        super().__init__()
        self.decoder = decoder.train().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.row = row

    def forward(self, latent: Tensor) -> Tensor:
        if isinstance(self.decoder, SDXLDecoder):
            return self.decoder(latent)[:, :, self.row :]
        return self.decoder(latent[:, :, self.row // 8 :].contiguous(memory_format=torch.channels_last))


def load_decoder(preset: dict[str, Any], weights: Path, sdxl: Path | None = None) -> LowerDecoder:
    """The decoder of the SDXL VAE, or of our own autoencoder in the folder ``weights``."""
    model = load_autoencoder(preset, weights / "autoencoder.safetensors", sdxl)
    return LowerDecoder(model.decoder, lower_row(preset))


class EditorLoss(nn.Module):
    """Eq. 9 of what the editor makes of a batch, and the lips vector's own term: the synthetic head's true lips must be readable.

    ``dimensions`` of the lips vector are used, the others are nought (the paper's ablation has 8).
    """

    def __init__(self, reconstruction: ReconstructionLoss, dimensions: int = LIPS) -> None:
        super().__init__()
        self.reconstruction, self.dimensions = reconstruction, dimensions

    def lips(self, teacher: nn.Module, batch: Batch, strength: float = 1.0) -> Tensor:
        """Lips vectors [B, 12] of the target."""
        return self.lips_of(teacher, batch.level_lower, batch.level_face, strength)

    def lips_of(self, teacher: nn.Module, lower: Tensor, face: Tensor, strength: float) -> Tensor:
        """Lips vectors [B, 12] of pictures, lower [B, 3, H, S] and face [B, 3, E, E]."""
        lips = teacher(*look(lower, face, strength, teacher.face_size)).float()
        return torch.cat([lips[:, : self.dimensions], torch.zeros_like(lips[:, self.dimensions :])], 1)

    def edited(self, task: EditorTask, batch: Batch) -> Tensor:
        """Latents [B, C, h, w] edited to the lips that the target shows."""
        return task.editor(batch.latent, batch.references, self.lips(task.teacher, batch, 0.0))

    def forward(self, task: EditorTask, batch: Batch) -> Losses:
        lips = self.lips(task.teacher, batch)
        noisy = lips + LIPS_NOISE * torch.randn_like(lips)
        edited = task.editor(batch.latent, batch.references, noisy)
        known = ~batch.parameters[:, :1].isnan()
        wrong = torch.where(known, task.probe(noisy) - batch.parameters.nan_to_num(), 0.0)
        return {**self.reconstruction(edited, batch), "true": TRUE_WEIGHT * wrong.square().mean()}


def editor_loss(preset: dict[str, Any], weights: Path, vgg19: Path | None, vggface2: Path | None, sdxl: Path | None) -> EditorLoss:
    """The preset's loss, with the decoder and the feature networks that there are."""
    check_terms(preset["loss"], vgg19, vggface2)
    decoder = load_decoder(preset, weights, sdxl)
    return EditorLoss(ReconstructionLoss(LossWeights(**preset["loss"]), decoder, *feature_networks(vgg19, vggface2)))


class Editing(Protocol):
    """A loss that can show what the editor of its task does."""

    reconstruction: ReconstructionLoss

    def edited(self, task: Any, batch: Batch) -> Tensor: ...


class Checker:
    """PSNR on held-out clips of each set, masked and unmasked, beside the input decoded as it is."""

    def __init__(self, people: list[Person], loss: Editing, references: int) -> None:
        self.loss = loss
        self.batches: dict[str, Batch] = {}
        generator = np.random.default_rng(1)
        for name in sorted({p.set_name for p in people}):
            chosen = [p for p in people if p.set_name == name]
            weights = np.full(len(chosen), 1 / len(chosen))
            for kind, share in (("masked", 1.0), ("pair", 0.0)):
                self.batches[f"{name}_{kind}"] = draw(chosen, weights, generator, CHECKED, share, references)

    def __call__(self, task: nn.Module) -> dict[str, float]:
        decoder, result = self.loss.reconstruction.decoder, {}
        for name, cpu in self.batches.items():
            batch = on(task, cpu)
            result[name] = psnr(decoder(self.loss.edited(task, batch)), batch.lower)
            if name.endswith("pair"):
                result[f"{name}_copy"] = psnr(decoder(batch.latent), batch.lower)
        return result


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the autoencoder; the editor is written there")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    sdxl: SdxlFolder = None,
    backbone: BackboneOption = Backbone.UNET,
    expression: ExpressionFile = None,
) -> None:
    """Train the editor and the lips teacher."""
    sizes = load_preset(preset)
    given = load_expression(expression, weights)
    loss = editor_loss(sizes, weights, vgg19, vggface2, sdxl)
    people, held_out = load_people(latents)
    task = EditorTask(sizes, backbone, given)
    start_from_teacher(task, sizes, weights, given)
    references, training = sizes[backbone.value]["references"], sizes["training"]
    batch = partial(draw, people, person_weights(people), count=pace().samples(sizes), masked_share=MASKED_SHARE, references=references)
    schedule = Schedule(
        steps=steps or training["steps"]["editor"], rate=training["editor_rate"], final_rate=training["final_rate"], warm_up=200
    )
    train(f"{backbone.value}_task", task, batch, loss, schedule, weights, check=Checker(held_out, loss, references))


if __name__ == "__main__":
    command(main)
