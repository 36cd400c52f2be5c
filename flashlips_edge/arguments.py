"""Command lines whose mistakes end in one sentence."""

from __future__ import annotations

import argparse
from typing import NoReturn

from flashlips_edge.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help names every option")
