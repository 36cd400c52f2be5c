"""A command line of this folder: a user's mistake ends in one sentence and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flashlips_edge.errors import UserError


def command(name: str, main: Callable[[], None]) -> None:
    """Run ``main``; ``name`` is the module that the user called."""
    try:
        main()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def check_batch(*batches: int) -> None:
    """Raises UserError for a --batch that is none."""
    if min(batches) < 1:
        raise UserError(f"--batch {min(batches)}: a batch is 1 frame or more")
