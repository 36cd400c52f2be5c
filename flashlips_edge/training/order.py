"""The order of the stages that train an editor's weights: one that is asked for again does not put back what a later one trained on."""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.training.editor import Backbone

LATER = {"refinement": ("sharp", "joint"), "sharp": ("joint",), "lips_encoder": ("joint",)}  # as their states are called


def trained_on(stage: str, weights: Path, backbone: Backbone) -> bool:
    """Whether a later stage has trained on what ``stage`` wrote in the folder ``weights``; then it says so."""
    states = [weights / f"{backbone.value}_{later}.state.safetensors" for later in LATER[stage]]
    later = [state for state in states if state.exists()]
    if later:
        print(f"{stage}: done, and trained on since; to do it again, delete {', '.join(map(str, later))}")
    return bool(later)
