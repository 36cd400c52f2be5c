"""A bundle to a device over ssh, and its engine built there. The device has a checkout with its environment, as docs/orin.md makes it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from flashlips_edge.errors import UserError

CHECKOUT = "flashlips-edge"  # on the device, in the user's home
NOT_CONNECTED = 255  # ssh's own exit status


def build_there(bundle: Path, host: str) -> None:
    """Send the bundle and build its engine on `host`, [user@]device. UserError where ssh, the device or the build fails; then the device's
    old bundle and engine are as they were."""
    check_host(host)
    place = f"work/targets/{bundle.parent.name}/{bundle.name}"
    listing = ["tar", "--create", "--directory", str(bundle), "--exclude", "./engine", "--file", "-", "."]
    with subprocess.Popen(listing, stdout=subprocess.PIPE) as archive:
        _ssh(host, receive(place), archive.stdout)
    if archive.returncode != 0:
        raise UserError(f"the bundle {bundle} cannot be read: tar ended with {archive.returncode}")
    _ssh(host, build(place), subprocess.DEVNULL)


def receive(place: str) -> str:
    """The device's command: unpack what comes beside its place, with the old engine's timing cache."""
    old, new = shlex.quote(place), shlex.quote(f"{place}.new")
    timings = f"if [ -f {old}/engine/timing.cache ]; then mkdir {new}/engine && cp {old}/engine/timing.cache {new}/engine/; fi"
    return f"cd {CHECKOUT} && rm -rf {new} && mkdir -p {new} && tar --extract --directory {new} --file - && {timings}"


def build(place: str) -> str:
    """The device's command: build the engine of what came, and only then put both in the old bundle's place."""
    old, new = shlex.quote(place), shlex.quote(f"{place}.new")
    compiled = f".venv/bin/python -m flashlips_edge.engines.build {new}"
    return f"cd {CHECKOUT} && {compiled} && rm -rf {old} && mv {new} {old} && echo {old}: in its place"


def check_host(host: str) -> None:
    """Raises UserError for what is no host; ssh would take a name with a dash in front as an option."""
    if not re.fullmatch(r"(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_][\w.-]*", host, re.ASCII):
        raise UserError(f"--host {host!r} is no device: give user@device")


def _ssh(host: str, command: str, given: object) -> None:
    try:
        done = subprocess.run(["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, command], stdin=given, check=False)  # type: ignore[call-overload]
    except OSError:
        raise UserError("--host needs the program ssh, which is missing: sudo apt-get install openssh-client") from None
    if done.returncode == NOT_CONNECTED:
        raise UserError(f"--host {host}: ssh cannot connect without a password; try ssh {host} and set up a key with ssh-copy-id {host}")
    if done.returncode != 0:
        raise UserError(
            f"--host {host}: the command there ended with {done.returncode}, see above; docs/orin.md says how to set the device up"
        )
