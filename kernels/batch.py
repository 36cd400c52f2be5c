"""How many frames a kernel is built, timed or counted for."""

from __future__ import annotations

from flashlips_edge.errors import UserError


def check_batch(*batches: int) -> None:
    """Raises UserError for a --batch that is none."""
    if min(batches) < 1:
        raise UserError(f"--batch {min(batches)}: a batch is 1 frame or more")
