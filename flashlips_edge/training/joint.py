"""Stage 8 of the recipe: the editor and the lips encoder together, so that the twelve numbers say what the editor needs to hear.

    python -m flashlips_edge.training.joint --latents work/latents --weights work/nano

A distilled lips encoder makes mistakes that the editor, trained on the teacher's lips, never heard of. Here the editor's losses reach
the lips encoder that is shipped. It is held near what it said before, so that a lips vector keeps its meaning. Beyond the paper, whose
preset leaves this stage out. It starts from finished networks, so that shipped ones can be trained on with it.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.editor_transformer import EditorTransformer
from flashlips_edge.models.lips import LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.critic import Critic, sharp_terms
from flashlips_edge.training.editor import Backbone, BackboneOption, Checker, editor_loss
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File
from flashlips_edge.training.grow import start_file
from flashlips_edge.training.latents import SdxlFolder
from flashlips_edge.training.lips_encoder import check_known, write_constants
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.losses import ReconstructionLoss
from flashlips_edge.training.pace import pace
from flashlips_edge.training.pairs import Batch, draw, load_people, person_weights
from flashlips_edge.training.views import look

SET_WEIGHT = {"grid_s1": 0.3, "grid_multi": 0.36, "crema_d": 0.14, "synthetic": 0.14, "demo": 0.06}
MASKED_SHARE = 0.35
LIPS_NOISE = 0.04  # less than in the stages before: the small dimensions vary by 0.1 to 0.2
PLAIN = 0.3  # strength of the disguise in which a face asks for lips: with more, the encoder's wavering is noise to the editor
ANCHOR_WEIGHT = 0.03  # the lips vector against what it was
TURNED_WEIGHT = 0.2  # lips read from a turned, disguised head against those that were asked for
RateOption = Annotated[Optional[float], typer.Option(help="of stage joint; default: the preset's joint_rate", min=1e-6, max=0.1)]  # noqa: UP045
HoldLipsOption = Annotated[bool, typer.Option("--hold-lips", help="joint leaves the lips encoder as it is: audio to lips stays right")]


class JointTask(nn.Module):
    """What learns: the editor, the lips encoder, and a critic of mouths."""

    def __init__(self, preset: dict[str, Any], backbone: Backbone = Backbone.UNET) -> None:
        super().__init__()
        self.editor = (EditorUNet if backbone is Backbone.UNET else EditorTransformer)(**preset[backbone.value])
        self.lips = LipsEncoder(**preset["lips"])
        self.critic = Critic()


class JointLoss(nn.Module):
    """The losses of sharpening, through the lips encoder; ``before`` is the lips encoder as it was. Where that is all there is, as the
    task's own is held, nothing asks it for more."""

    def __init__(self, reconstruction: ReconstructionLoss, before: nn.Module) -> None:
        super().__init__()
        self.reconstruction, self.before = reconstruction, before.eval().requires_grad_(False)

    def forward(self, task: JointTask, batch: Batch) -> Losses:
        size = batch.face.shape[-1]
        plain, _ = look(batch.level_lower, batch.level_face, PLAIN, size)
        if not next(task.lips.parameters()).requires_grad:
            lips = task.lips(plain).float()
            edited = task.editor(batch.latent, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
            return sharp_terms(self.reconstruction, task.critic, edited, batch)
        disguised, _ = look(batch.lower, batch.face, 1.0, size)
        lips, turned = task.lips(torch.cat([plain, disguised])).float().chunk(2)
        edited = task.editor(batch.latent, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
        return {
            **sharp_terms(self.reconstruction, task.critic, edited, batch),
            "anchor": ANCHOR_WEIGHT * nn.functional.smooth_l1_loss(lips, self.before(batch.level_face).float(), beta=0.1),
            "turned": TURNED_WEIGHT * nn.functional.smooth_l1_loss(turned, lips.detach(), beta=0.1),
        }

    def edited(self, task: JointTask, batch: Batch) -> Tensor:
        """Latents [B, C, h, w] edited to the lips that the target shows."""
        return task.editor(batch.latent, batch.references, task.lips(batch.level_face).float())


def kept(weights: Path, backbone: Backbone) -> Path:
    """The lips encoder as it was when the stage first began in the folder ``weights``: where it goes on, it has replaced it."""
    path = weights / f"{backbone.value}_joint.before.safetensors"
    if not (path.is_file() and (weights / f"{backbone.value}_joint.state.safetensors").exists()):
        with atomic_path(path) as temporary:
            shutil.copyfile(weights / "lips_encoder.safetensors", temporary)
    return path


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the editor and the lips encoder, which it replaces")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano or edge")] = "nano",
    steps: StepsOption = None,
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    sdxl: SdxlFolder = None,
    backbone: BackboneOption = Backbone.UNET,
    rate: RateOption = None,
    hold_lips: HoldLipsOption = False,
) -> None:
    """Train editor and lips encoder together."""
    sizes = load_preset(preset)
    if "joint_rate" not in sizes["training"]:
        raise UserError(f"--preset {preset}: has no joint_rate, as the paper has no such stage; take nano or edge")
    people, held_out = load_people(latents)
    task, before = JointTask(sizes, backbone), LipsEncoder(**sizes["lips"])
    grown = start_file(weights, backbone)
    held = hold_lips or grown.is_file()  # with the lips encoder audio to lips was taken as it is
    if not held:
        check_known(people, latents)
    load_weights(grown if grown.is_file() else weights / f"{backbone.value}.safetensors", task.editor)
    task.lips.requires_grad_(not held)
    load_weights(weights / "lips_encoder.safetensors", task.lips)
    load_weights(weights / "lips_encoder.safetensors" if held else kept(weights, backbone), before)
    loss = JointLoss(editor_loss(sizes, weights, vgg19, vggface2, sdxl).reconstruction, before)
    references, training = sizes[backbone.value]["references"], sizes["training"]
    chances = person_weights(people, SET_WEIGHT)
    batch = partial(draw, people, chances, count=pace().samples(sizes), masked_share=MASKED_SHARE, references=references)
    count = steps or training["steps"]["joint"]
    schedule = Schedule(steps=count, rate=rate or training["joint_rate"], final_rate=training["final_rate"], warm_up=200)
    average = train(f"{backbone.value}_joint", task, batch, loss, schedule, weights, check=Checker(held_out, loss, references))
    assert isinstance(average, JointTask)
    save_weights(weights / f"{backbone.value}.safetensors", average.editor)
    if not held:
        save_weights(weights / "lips_encoder.safetensors", average.lips)
        write_constants(weights, average.lips, people)


if __name__ == "__main__":
    command(main)
