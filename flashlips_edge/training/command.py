"""A recipe as a command: a user's mistake ends in one sentence and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Optional

import typer

from flashlips_edge.errors import UserError

StepsOption = Annotated[Optional[int], typer.Option("--steps", help="optimiser steps; default: the preset's", min=1)]  # noqa: UP045 typer reads it in 3.10


def command(main: Callable[..., None]) -> None:
    """Run ``main`` on the command line's arguments."""
    try:
        typer.run(main)
    except UserError as error:
        print(f"flashlips_edge.training: {error}", file=sys.stderr)
        raise SystemExit(2) from None
