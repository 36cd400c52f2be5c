"""Stage 5 of the recipe: mask-free self-refinement (FlashLips, section 3.2).

    python -m flashlips_edge.training.refinement --latents work/latents --weights work/nano

In one step of four the trained editor, frozen, gives pictures of the same person with other lips; a copy of it learns to go from
the altered picture to the true one and from the true one to the altered one, and the lips read from the result must be the lips
that were asked for, also lips of other people (the latter beyond the paper). The other steps are the editor's own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.editor import LIPS_NOISE, Backbone, BackboneOption, Checker, EditorLoss, EditorTask, editor_loss
from flashlips_edge.training.expression import ExpressionFile, load_expression
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File
from flashlips_edge.training.latents import SdxlFolder
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.order import trained_on
from flashlips_edge.training.pace import pace
from flashlips_edge.training.pairs import Batch, draw, load_people, person_weights
from flashlips_edge.training.views import look

SET_WEIGHT = {"grid_s1": 0.2, "grid_multi": 0.34, "crema_d": 0.14, "synthetic": 0.22, "demo": 0.1}  # now the others, more
REFINE_SHARE = 0.25  # of the steps go there and back; the others take real and synthetic pairs, which teach more a second
MASKED_SHARE = 0.2  # keeps the masked ability, by which the editor is also measured
ALTERED_SHARE = 0.6  # of the unmasked inputs come from the frozen editor, the rest are real frames
OBEY_WEIGHT = 0.15  # lips read from the result against lips asked for
SYMMETRIC_WEIGHT = 0.3  # true -> altered


class RefinementLoss(nn.Module):
    """In one step of four both directions between true and altered pictures, else the editor's own loss.

    A given expression encoder (--expression) passes no gradient on: there the four mouth dimensions alone pull a picture to the lips that
    it must obey.
    """

    def __init__(self, plain: EditorLoss, frozen: EditorTask) -> None:
        super().__init__()
        self.plain, self.frozen = plain, frozen.eval().requires_grad_(False)

    def forward(self, task: EditorTask, batch: Batch) -> Losses:
        if torch.rand(()) < REFINE_SHARE:
            return self.refine(task, batch)
        return self.plain(task, batch)

    def refine(self, task: EditorTask, batch: Batch) -> Losses:
        """altered -> true, true -> altered, and obedience to lips from anybody."""
        half = slice(0, (len(batch.hidden) + 1) // 2)  # the way there costs as much as the way back and teaches less
        lips, other, altered = self.alter(batch)
        use = (1 - batch.hidden) * (torch.rand_like(batch.hidden) < ALTERED_SHARE).float()
        start = torch.where(use[:, None, None, None] > 0, altered, batch.latent)
        edited = task.editor(start, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
        back = task.editor(batch.target[half], batch.references[half], other[half])
        there = self.plain.reconstruction.decoder(back).float()
        teacher = self.frozen.teacher
        read = teacher(*look(there, face_of(there, batch.face[half]), 0.5, teacher.face_size)).float()
        used, unturned = self.plain.dimensions, batch.unturned[half, None]  # of a turned face the teacher would read the turn
        return {
            **self.plain.reconstruction(edited, batch),
            "symmetric": SYMMETRIC_WEIGHT * (back - altered[half]).abs().mean(),
            "obey": OBEY_WEIGHT * (unturned * (read - other[half])[:, :used]).abs().mean(),
        }

    @torch.no_grad()
    def alter(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The target's lips [B, 12], other lips, on the way to somebody else's in the batch, and the latents that show them."""
        lips = self.plain.lips(self.frozen.teacher, batch)
        others = lips[torch.randperm(len(lips), device=lips.device)]
        mix = 0.3 + 0.7 * torch.rand(len(lips), 1, device=lips.device)
        other = lips + mix * (others - lips) + LIPS_NOISE * torch.randn_like(lips)
        return lips, other, self.frozen.editor(batch.target, batch.references, other).float()


def face_of(lower: Tensor, face: Tensor) -> Tensor:
    """The teacher's view [B, 3, E, E] of a picture whose lower part was edited."""
    rows = round(lower.shape[2] * face.shape[2] / lower.shape[3])  # of E
    small = nn.functional.interpolate(lower, (rows, face.shape[3]), mode="bilinear", antialias=True, align_corners=False)
    return torch.cat([face[:, :, : face.shape[2] - rows], small], 2)


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the editor's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    sdxl: SdxlFolder = None,
    backbone: BackboneOption = Backbone.UNET,
    expression: ExpressionFile = None,
) -> None:
    """Fine-tune the editor without a mask."""
    sizes = load_preset(preset)
    given = load_expression(expression, weights)
    if trained_on("refinement", weights, backbone):
        return
    plain = editor_loss(sizes, weights, vgg19, vggface2, sdxl)
    people, held_out = load_people(latents)
    frozen, task = EditorTask(sizes, backbone, given), EditorTask(sizes, backbone, given)
    for model in (frozen, task):
        load_weights(weights / f"{backbone.value}_task.safetensors", model)
    task.teacher.requires_grad_(False)
    task.probe.requires_grad_(False)
    references, training = sizes[backbone.value]["references"], sizes["training"]
    chances = person_weights(people, SET_WEIGHT)
    batch = partial(draw, people, chances, count=pace().samples(sizes), masked_share=MASKED_SHARE, references=references)
    schedule = Schedule(
        steps=steps or training["steps"]["refinement"], rate=training["refinement_rate"], final_rate=training["final_rate"], warm_up=50
    )
    check = Checker(held_out, plain, references)
    average = train(f"{backbone.value}_refinement", task, batch, RefinementLoss(plain, frozen), schedule, weights, check=check)
    assert isinstance(average, EditorTask)
    save_weights(weights / f"{backbone.value}.safetensors", average.editor)


if __name__ == "__main__":
    command(main)
