"""What systemd's Type=notify and WatchdogSec= want to hear."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send READY=1, WATCHDOG=1 or STOPPING=1 to the service manager; without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.settimeout(1)
        to.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_period_s() -> float | None:
    """How often the service manager wants to hear WATCHDOG=1: half of its limit; None if it does not watch this process."""
    limit_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not limit_us.isdigit() or pid not in (None, str(os.getpid())):
        return None
    return int(limit_us) / 2e6
