"""The networks of the loss's feature terms: from files of the user's, or our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import typer
from torch import nn

from flashlips_edge.errors import UserError
from flashlips_edge.models.features import SHIPPED, fill, load_features
from flashlips_edge.models.resnet50 import ResNet50
from flashlips_edge.models.vgg import Vgg19

HELP = "safetensors of {}, named as torchvision names them; none: the feature network of our own"
Vgg19File = Annotated[Optional[Path], typer.Option("--vgg19", help=HELP.format("VGG-19"))]  # noqa: UP045 typer reads it in 3.10
VggFace2File = Annotated[Optional[Path], typer.Option("--vggface2", help=HELP.format("a ResNet-50 trained on VGGFace2"))]  # noqa: UP045


def check_terms(loss: Mapping[str, float], vgg19: Path | None, vggface2: Path | None) -> None:
    """Raises UserError where a file is given for a term that a preset's ``loss`` has not."""
    for option, path, term in (("--vgg19", vgg19, "perceptual"), ("--vggface2", vggface2, "face")):
        if path is not None and not loss.get(term):
            raise UserError(f"{option} {path}: the preset's loss has no {term} term; leave the file out, or take preset paper")


def feature_networks(vgg19: Path | None, vggface2: Path | None) -> tuple[nn.Module, nn.Module]:
    """Networks with ``maps`` for the perceptual and the face term. Raises UserError where a file is missing or another network's."""
    own = load_features(SHIPPED) if vgg19 is None or vggface2 is None else nn.Identity()
    perceptual = own if vgg19 is None else _load(Vgg19(), "--vgg19", vgg19)
    return perceptual, own if vggface2 is None else _load(ResNet50(), "--vggface2", vggface2)


def _load(network: nn.Module, option: str, path: Path) -> nn.Module:
    """The network with the file's weights; names that it does not have, of layers beyond those, are left out."""
    kind = type(network).__name__
    advice = f"the weights of {kind}, named as torchvision does, are needed in a file that safetensors.torch.save_file wrote"
    fill(network, path, f"{option} {path}", advice)
    return network
