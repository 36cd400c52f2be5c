"""The order of the stages that train an editor's weights: one that is asked for again does not put back what a later one trained on.

The lips encoder is one for both backbones, and the teacher that it is distilled from learns with each of them by itself.
"""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.errors import UserError
from flashlips_edge.training.editor import Backbone

LATER = {"refinement": ("sharp", "joint"), "sharp": ("joint",), "lips_encoder": ("joint",)}  # as their states are called


def trained_on(stage: str, weights: Path, backbone: Backbone) -> bool:
    """Whether a later stage has trained on what ``stage`` wrote in the folder ``weights``; then it says so."""
    kinds = list(Backbone) if stage == "lips_encoder" else [backbone]
    states = [weights / f"{kind.value}_{later}.state.safetensors" for kind in kinds for later in LATER[stage]]
    later = [state for state in states if state.exists()]
    if later:
        print(f"{stage}: done, and trained on since; to do it again, delete {', '.join(map(str, later))}")
    return bool(later)


def check_backbone(weights: Path, backbone: Backbone) -> None:
    """Raises UserError where the other backbone learned in the folder ``weights``, so that its lips encoder follows another teacher."""
    for task in (weights / f"{other.value}_task.safetensors" for other in Backbone if other is not backbone):
        if task.exists():
            raise UserError(
                f"--backbone {backbone.value}: the folder's lips encoder learns from the other backbone's teacher, as {task} is there; "
                f"name another --work, or use --start"
            )
