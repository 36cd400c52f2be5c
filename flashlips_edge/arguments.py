"""Command lines whose mistakes end in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from flashlips_edge.errors import UserError

WRONG_USE = 2


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """A UserError within the block ends the program: its sentence on standard error, exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(WRONG_USE)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help names every option")
