"""Stage 6 of the recipe: the refined editor against a critic, so that teeth and lips have edges again.

    python -m flashlips_edge.training.sharpening --latents work/latents --weights work/nano

The losses of the stages before stay, the critic's are added. Presets that follow the paper to the letter leave it out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.critic import Critic, sharp_terms
from flashlips_edge.training.editor import LIPS_NOISE, Backbone, BackboneOption, Checker, EditorLoss, EditorTask, editor_loss
from flashlips_edge.training.expression import ExpressionFile, ExpressionGraph, load_expression
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File
from flashlips_edge.training.latents import SdxlFolder
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.order import trained_on
from flashlips_edge.training.pace import pace
from flashlips_edge.training.pairs import Batch, draw, load_people, person_weights
from flashlips_edge.training.refinement import MASKED_SHARE, SET_WEIGHT


class SharpTask(EditorTask):
    """The editor and its critic; the lips teacher stays as it is."""

    def __init__(
        self, preset: dict[str, Any], weights: Path, backbone: Backbone = Backbone.UNET, expression: ExpressionGraph | None = None
    ) -> None:
        super().__init__(preset, backbone, expression)
        load_weights(weights / f"{backbone.value}_refinement.safetensors", self)
        self.teacher.requires_grad_(False)
        self.probe.requires_grad_(False)
        self.critic = Critic()


class SharpLoss(torch.nn.Module):
    """Eq. 9, and what the critic says of the same pictures."""

    def __init__(self, plain: EditorLoss) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, task: SharpTask, batch: Batch) -> Losses:
        lips = self.plain.lips(task.teacher, batch)
        edited = task.editor(batch.latent, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
        return sharp_terms(self.plain.reconstruction, task.critic, edited, batch)


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the refined editor's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    sdxl: SdxlFolder = None,
    backbone: BackboneOption = Backbone.UNET,
    expression: ExpressionFile = None,
) -> None:
    """Sharpen the editor."""
    sizes = load_preset(preset)
    if "sharpening_rate" not in sizes["training"]:
        raise UserError(f"--preset {preset}: has no sharpening_rate, as the paper has no such stage; take nano or edge")
    given = load_expression(expression, weights)
    if trained_on("sharp", weights, backbone):
        return
    plain = editor_loss(sizes, weights, vgg19, vggface2, sdxl)
    people, held_out = load_people(latents)
    references, training = sizes[backbone.value]["references"], sizes["training"]
    chances = person_weights(people, SET_WEIGHT)
    batch = partial(draw, people, chances, count=pace().samples(sizes), masked_share=MASKED_SHARE, references=references)
    schedule = Schedule(
        steps=steps or training["steps"]["sharpening"], rate=training["sharpening_rate"], final_rate=training["final_rate"], warm_up=100
    )
    task = SharpTask(sizes, weights, backbone, given)
    average = train(f"{backbone.value}_sharp", task, batch, SharpLoss(plain), schedule, weights, check=Checker(held_out, plain, references))
    assert isinstance(average, SharpTask)
    save_weights(weights / f"{backbone.value}.safetensors", average.editor)


if __name__ == "__main__":
    command(main)
