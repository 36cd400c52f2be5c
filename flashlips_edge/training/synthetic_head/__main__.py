"""python -m flashlips_edge.training.synthetic_head: contact sheets and the demo's material."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes

PROGRAM = "flashlips_edge.training.synthetic_head"
WRONG_USE = 2


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(prog=f"python -m {PROGRAM}", description="Render the synthetic talking head.", allow_abbrev=False)
    result.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet of people, lips and poses")
    result.add_argument("--demo", action="store_true", help="write avatar.mp4 and speech.flac")
    result.add_argument("--assets", type=Path, metavar="FOLDER", help="where --demo writes (default: the package's own assets)")
    result.add_argument("--seed", type=int, default=0, help="first person of the sheet (default: 0)")
    result.add_argument("--people", type=int, default=16, help="people on the sheet, 1 to 200 (default: 16)")
    return result


def run(arguments: Sequence[str] | None = None) -> None:
    """Do what the options say, or raise UserError."""
    options = parser().parse_args(arguments)
    if options.sheet is None and not options.demo:
        raise UserError("nothing to do: give --sheet PNG or --demo")
    if not 1 <= options.people <= 200:
        raise UserError(f"--people is {options.people}; it must be from 1 to 200")
    if options.sheet is not None:
        from flashlips_edge.training.synthetic_head.sheet import contact_sheet

        if options.sheet.suffix.lower() != ".png":
            raise UserError(f"--sheet is {options.sheet}; its name must end in .png")
        picture = contact_sheet(options.seed, options.people)
        write_bytes(options.sheet, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        print(options.sheet)
    if options.demo:
        from flashlips_edge.training.synthetic_head import demo

        for path in demo.write(options.assets or demo.ASSETS):
            print(path)


def main() -> int:
    try:
        run()
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    return 0


if __name__ == "__main__":
    sys.exit(main())
