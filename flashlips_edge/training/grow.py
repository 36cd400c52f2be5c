"""A larger preset's networks from a smaller one's: what fits as it is, the editor with more blocks that change nothing yet.

    python -m flashlips_edge.training.grow --start weights/nano --weights work/edge --preset edge
    python -m flashlips_edge.training.grow --start weights/nano --weights work/nano --preset nano --backbone editor_transformer

Preset edge has nano's autoencoder, lips and speech, so that only its editor is left to train, and that from nano's: thousands of
steps of a larger network are saved. The editor's widths must be the same; sizes, rows and numbers of blocks may differ. A transformer
where there is only a U-Net takes its two ends, which read the references and write the residual. The finished networks are enough,
such as the shipped ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.files import make_folder, write_bytes
from flashlips_edge.models.editor import Editor
from flashlips_edge.models.networks import networks
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.references import ReferenceAttention
from flashlips_edge.training.checkpoint import load_weights, read_tensors, save_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import Backbone, BackboneOption
from flashlips_edge.training.ship import CONSTANTS

ENDS = ("backbone", "embed", "stem", "attention", "recall", "norm", "residual", "copies")  # what U-Net and transformer have alike
KEPT = ("autoencoder", "lips_encoder", "speech_encoder", "audio_to_lips")
Area = tuple[int, int, int, int]  # top, bottom, left and right in latent cells of the crop


def start_file(weights: Path, backbone: Backbone) -> Path:
    """The editor that was grown, from which training.joint starts."""
    return weights / f"{backbone.value}_start.safetensors"


def grow_editor(small: Editor, large: Editor) -> None:
    """Weights of ``small`` into ``large``: its k-th block of a level into the k-th there, learned positions by their place in the
    crop. The blocks that ``small`` lacks stay as they are: new ones change nothing. Of an editor of the other kind the two ends.
    Raises UserError for other widths."""
    target, alike = large.state_dict(), type(small) is type(large)
    for name, value in small.state_dict().items():
        if not alike and name.split(".")[0] not in ENDS:
            continue
        name = _place(name, small, large)
        if name.endswith("position"):
            value = _resized(value, _area(small, name), _area(large, name), large.size[0] / small.size[0])
        if name not in target or target[name].shape != value.shape:
            raise UserError(f"--start: an editor of other widths or more blocks, {name} does not fit; train this preset anew")
        target[name] = value
    large.load_state_dict(target)


def _place(name: str, small: Editor, large: Editor) -> str:
    """What a tensor of ``small`` is called in ``large``, where attention may stand between a level's blocks."""
    found = re.match(r"((?:down|up)\.\d+)\.(\d+)\.", name)
    if found is None:
        return name
    level, index = found[1], int(found[2])
    here, there = (list(model.get_submodule(level).children()) for model in (small, large))
    alike = [i for i, module in enumerate(there) if type(module) is type(here[index])]
    nth = sum(type(module) is type(here[index]) for module in here[:index])
    return f"{level}.{alike[nth] if nth < len(alike) else len(there)}.{name[found.end() :]}"


def _area(editor: Editor, name: str) -> Area:
    """Where the learned positions ``name`` lie: an attention's box, or all that a transformer sees."""
    first, last = editor.rows
    module = editor.get_submodule(name.rpartition(".")[0])
    if not isinstance(module, ReferenceAttention):
        return first, last, 0, editor.size[1]
    top, bottom, left, right = module.box
    return first + top, first + bottom, left, right


def _resized(value: Tensor, old: Area, new: Area, scale: float) -> Tensor:
    """Learned positions, [1, C, h, w] or a transformer's [1, patches, C], of the area ``old`` for the places of ``new`` in a crop
    ``scale`` times as large."""
    height, width = old[1] - old[0], old[3] - old[2]
    maps = value.ndim == 4
    patch = 1 if maps else round((height * width / value.shape[1]) ** 0.5)
    grid = value if maps else value.transpose(1, 2).reshape(1, -1, height // patch, width // patch)
    y, x = (_places(new[i], new[i + 1], patch, scale, old[i], old[i + 1]) for i in (0, 2))
    where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    grid = F.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=False)
    return grid if maps else grid.flatten(2).transpose(1, 2)


def _places(begin: int, end: int, patch: int, scale: float, low: int, high: int) -> Tensor:
    """Centres of the patches from ``begin`` to ``end`` of the large crop, as -1 to 1 between ``low`` and ``high`` of the small one."""
    centre = begin + patch * (torch.arange((end - begin) // patch) + 0.5)
    return (centre / scale - low) / (high - low) * 2 - 1


def _backbone_of(start: Path, wanted: Backbone) -> Backbone:
    """Which editor of the folder to start from: the wanted kind, or the other where there is only that."""
    there = [kind for kind in Backbone if (start / f"{kind.value}.safetensors").is_file()]
    return there[0] if len(there) == 1 else wanted


def keep(start: Path, weights: Path, models: dict[str, nn.Module]) -> None:
    """Copy networks that the larger preset has alike. Raises UserError for one that is missing or of another size, and for another one
    in its place; then nothing is written."""
    for name, model in models.items():
        load_weights(start / f"{name}.safetensors", model)
    if not (start / CONSTANTS).is_file():
        raise UserError(f"--start {start}: {CONSTANTS} is missing; run the stage lips-encoder there first")
    constants = (start / CONSTANTS).read_bytes()
    others = [path.name for name, model in models.items() if (path := weights / f"{name}.safetensors").exists() and not _holds(path, model)]
    if (weights / CONSTANTS).exists() and (weights / CONSTANTS).read_bytes() != constants:
        others.append(CONSTANTS)
    if others:
        raise UserError(f"--start {start}: {weights} has another {', '.join(others)}; take --start {weights}, or another --work")
    for name, model in models.items():
        save_weights(weights / f"{name}.safetensors", model)
    write_bytes(weights / CONSTANTS, constants)


def _holds(path: Path, model: nn.Module) -> bool:
    """Whether a file has the model's weights, in whatever precision it keeps them."""
    ours, theirs = model.state_dict(), read_tensors(path)
    return ours.keys() == theirs.keys() and all(torch.equal(value.float(), theirs[name].float()) for name, value in ours.items())


def main(
    start: Annotated[Path, typer.Option(help="folder with the finished networks of a smaller preset")] = Path("weights/nano"),
    start_preset: Annotated[str, typer.Option(help="that preset")] = "nano",
    weights: Annotated[Path, typer.Option(help="folder for the larger preset's weights")] = Path("work/edge"),
    preset: Annotated[str, typer.Option(help="the larger preset")] = "edge",
    backbone: BackboneOption = Backbone.UNET,
) -> None:
    """Write the larger preset's networks: all but the editor are ready, the editor is what training.joint starts from."""
    theirs = _backbone_of(start, backbone)
    small, large = networks(load_preset(start_preset))[theirs.value], networks(load_preset(preset))[backbone.value]
    assert isinstance(small, Editor) and isinstance(large, Editor)
    load_weights(start / f"{theirs.value}.safetensors", small)
    grow_editor(small, large)
    make_folder(weights)
    models = networks(load_preset(preset))
    keep(start, weights, {name: models[name] for name in KEPT})
    save_weights(start_file(weights, backbone), large)
    part = "an editor" if theirs is backbone else f"the ends of an editor ({theirs.value})"
    print(f"{weights}: {', '.join(KEPT)} of {start}; {part} to start from")


if __name__ == "__main__":
    command(main)
