"""A recipe as a command: a user's mistake ends in one sentence and exit status 2."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer
from safetensors import SafetensorError
from typer.core import TyperCommand

from flashlips_edge.arguments import one_sentence
from flashlips_edge.errors import UserError
from flashlips_edge.interrupt import end_on_sigterm

StepsOption = Annotated[Optional[int], typer.Option("--steps", help="optimiser steps; default: the preset's", min=1)]  # noqa: UP045 typer reads it in 3.10
UsageError: Any = typer.BadParameter.__base__  # click's or, in newer versions, typer's own
STOPPED = 130
NO_ROOM = ("No space left", "File too large", "quota exceeded", "requested and")  # the last is NumPy's


class Recipe(TyperCommand):
    """A command that refuses NaN, which click finds in every range."""

    def invoke(self, ctx: Any) -> Any:
        parameter: Any
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and math.isnan(value):
                raise typer.BadParameter("nan is no number", ctx, parameter)
        return super().invoke(ctx)


def command(main: Callable[..., None]) -> None:
    """Run ``main`` on the command line's arguments."""
    app = typer.Typer(add_completion=False)
    app.command(cls=Recipe)(main)
    if "WORLD_SIZE" not in os.environ:  # of several processes each waits for the others where no signal reaches it
        end_on_sigterm()
    with one_sentence(_program(main)):
        try:
            sys.exit(app(standalone_mode=False))
        except (OSError, SafetensorError) as error:
            if not any(words in str(error) for words in NO_ROOM):
                raise
            raise UserError(f"the disk takes no more ({error}); make room and run it again, what was done is kept") from None
        except UsageError as error:
            raise UserError(_sentence(error)) from None
        except typer.Abort:  # Ctrl-C, in older versions
            sys.exit(STOPPED)


def _program(main: Callable[..., None]) -> str:
    """The module that the user called."""
    spec = sys.modules[main.__module__].__spec__  # None of a file that was run by its path
    return "flashlips_edge.training" if spec is None else spec.name.removesuffix(".__main__")


def _sentence(error: Any) -> str:
    """What Typer says of a wrong argument, with the value where it leaves that out."""
    words = " ".join(error.format_message().split()).rstrip(".")
    found: list[Any] = getattr(error.__cause__, "errors", list)()
    value = repr(found[0]["input"]) if found else ""
    return f"{words}{'' if value in words else f' (given: {value})'}; --help names every option"
