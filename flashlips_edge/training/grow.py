"""A larger preset's networks from a smaller one's: what fits as it is, the editor with more blocks that change nothing yet.

    python -m flashlips_edge.training.grow --start work/nano --weights work/edge --preset edge

Preset edge has nano's autoencoder, lips and speech, so that only its editor is left to train, and that from nano's: thousands of
steps of a larger network are saved. The editor's widths must be the same; sizes, rows and numbers of blocks may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from flashlips_edge.models.editor import Editor
from flashlips_edge.models.networks import networks
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import fill, load_weights, save_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import Backbone, BackboneOption, EditorTask, start_file
from flashlips_edge.training.ship import CONSTANTS

KEPT = ("autoencoder", "lips_encoder", "speech_encoder", "audio_to_lips")
STAGES = ("sharp", "refinement", "task")  # of the smaller editor, the last first


def grow_editor(small: Editor, large: Editor) -> None:
    """Weights of ``small`` into ``large``: its k-th block of a level into the k-th there, learned positions by their place in the
    crop. The blocks that ``small`` lacks stay as they are: new ones change nothing. Raises UserError for other widths."""
    target = large.state_dict()
    for name, value in small.state_dict().items():
        name = _place(name, small, large)
        if name.endswith("position"):
            value = _resized(value, small, large)
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


def _resized(value: Tensor, small: Editor, large: Editor) -> Tensor:
    """Learned positions, [1, C, rows, w] or a transformer's [1, rows * w, C], for the places of ``large``."""
    maps = value.ndim == 4
    cells = value.shape[2] * value.shape[3] if maps else value.shape[1]
    patch = round((_seen(small)[0] * _seen(small)[1] / cells) ** 0.5)
    height, width = (n // patch for n in _seen(small))
    grid = value if maps else value.transpose(1, 2).reshape(1, -1, height, width)
    (top, bottom), size = small.rows, small.size
    rows, columns = (n // patch for n in _seen(large))
    y = large.rows[0] + patch * (torch.arange(rows) + 0.5)  # in latent cells of the large crop
    y = (y * size[0] / large.size[0] - top) / (bottom - top) * 2 - 1
    x = (torch.arange(columns) + 0.5) / columns * 2 - 1
    where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    grid = F.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=False)
    return grid if maps else grid.flatten(2).transpose(1, 2)


def _seen(editor: Editor) -> tuple[int, int]:
    return editor.rows[1] - editor.rows[0], editor.size[1]


def keep(start: Path, weights: Path, models: Iterable[tuple[str, nn.Module]]) -> None:
    """Copy networks that the larger preset has alike. Raises UserError for one that is missing or of another size."""
    for name, model in models:
        load_weights(start / f"{name}.safetensors", model)
        save_weights(weights / f"{name}.safetensors", model)
    if not (start / CONSTANTS).is_file():
        raise UserError(f"--start {start}: {CONSTANTS} is missing; run the stage lips-encoder there first")
    write_bytes(weights / CONSTANTS, (start / CONSTANTS).read_bytes())


def main(
    start: Annotated[Path, typer.Option(help="folder in which a smaller preset was trained")] = Path("work/nano"),
    start_preset: Annotated[str, typer.Option(help="that preset")] = "nano",
    weights: Annotated[Path, typer.Option(help="folder for the larger preset's weights")] = Path("work/edge"),
    preset: Annotated[str, typer.Option(help="the larger preset")] = "edge",
    backbone: BackboneOption = Backbone.UNET,
) -> None:
    """Write the larger preset's networks: all but the editor are ready, the editor is what training.editor starts from."""
    trained = [path for stage in STAGES if (path := start / f"{backbone.value}_{stage}.safetensors").is_file()]
    if not trained:
        raise UserError(f"--start {start}: no trained editor; run python -m flashlips_edge.training --preset {start_preset} first")
    sizes = load_preset(preset)
    small, large = EditorTask(load_preset(start_preset), backbone), EditorTask(sizes, backbone)
    tensors = {name: value for name, value in load_file(trained[0]).items() if not name.startswith("critic.")}
    fill(small, tensors, trained[0])
    grow_editor(small.editor, large.editor)
    large.teacher.load_state_dict(small.teacher.state_dict())
    large.probe.load_state_dict(small.probe.state_dict())
    weights.mkdir(parents=True, exist_ok=True)
    models = networks(sizes)
    keep(start, weights, [(name, models[name]) for name in KEPT])
    save_weights(start_file(weights, backbone), large)
    print(f"{weights}: {', '.join(KEPT)} of {start}; an editor to start from")


if __name__ == "__main__":
    command(main)
