"""Who may ask: no foreign web page ever, and where the service has a token only those who know it."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from flashlips_edge.errors import UserError

SHORTEST_TOKEN = 16


class Access:
    """The token, None on loopback where there need not be one. Tokens are compared in constant time and never logged."""

    def __init__(self, token: str | None):
        self._token = None if token is None else token.encode()

    @property
    def open(self) -> bool:
        return self._token is None

    def knows(self, token: str | None) -> bool:
        """Whether this is the token, or none is needed."""
        return self._token is None or (token is not None and hmac.compare_digest(token.encode(errors="surrogatepass"), self._token))

    def bears(self, request: web.Request) -> bool:
        """Whether the request's Authorization header holds the token, or none is needed."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self.knows(token.strip() if scheme.lower() == "bearer" else None)

    def refusal(self, request: web.Request) -> str | None:
        """One sentence where a web page of another site is asking; without a token, also under another name of this machine."""
        origin = request.headers.get("Origin")
        try:
            foreign = origin is not None and urlsplit(origin).netloc != request.host
            local = is_loopback(urlsplit(f"//{request.host}").hostname or "")
        except ValueError:
            return "requests whose Origin or Host is no address are refused"
        if foreign:
            return "requests from web pages of another origin are refused"
        if self.open and not local:
            return "without a token the service answers to loopback names only: localhost, 127.0.0.1, [::1]"
        return None


def read_token(token: str | None, file: Path | None) -> str | None:
    """The token of --token or --token-file. UserError for one that is too short, or a file that cannot be read."""
    name = "--token"
    if file is not None:
        name = f"--token-file {file}"
        if token is not None:
            raise UserError("give either --token or --token-file, not both")
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{name}: it cannot be read as a text of ASCII letters: {getattr(error, 'strerror', None) or 'other bytes'}"
            ) from None
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(f"{name}: the token has {len(token)} characters: at least {SHORTEST_TOKEN} are needed, ASCII without spaces")
    return token


def check_host(host: str, token: str | None) -> None:
    """UserError for a host beyond loopback without a token."""
    if token is None and not is_loopback(host):
        raise UserError(f"--host {host} can be reached from other machines: give --token or --token-file with it, or take 127.0.0.1")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
