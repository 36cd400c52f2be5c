"""python -m flashlips_edge.signature: who made a bundle, by Ed25519. An engine file is code: with a key, only what its holder signed opens.

    keygen KEY            a new private key in KEY, readable by its owner alone, and its public half in KEY.pub
    sign KEY BUNDLE       sign the bundle's manifest, and its engine's, each in manifest.json.sig beside it
    verify KEY.pub BUNDLE exit status 0 if that key signed the bundle, all its files are as signed, and so is its engine

A manifest holds the sha256 of every file, so its signature covers them all. `--require-signature KEY.pub` of run, serve, prepare and soak,
and `require_signature` of LipSync.open, refuse all else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashlips_edge.arguments import Parser
from flashlips_edge.bundle import MOST_MANIFEST_BYTES, Bundle
from flashlips_edge.engines.engine_folder import NAME as ENGINE
from flashlips_edge.engines.engine_folder import EngineFolder
from flashlips_edge.errors import UserError
from flashlips_edge.files import read_bytes, write_bytes

PROGRAM = "flashlips_edge.signature"
PURPOSE = b"flashlips-edge manifest\n"  # what else the key signs can never be taken for a manifest
SUFFIX = ".sig"
MOST_SIGNATURE_BYTES = 1 << 16


def keygen(path: Path) -> Path:
    """Write a private key to `path` and its public half to `path`.pub; gives the latter. UserError where one stands there already."""
    keys, serialization = _library()
    public = path.with_name(f"{path.name}.pub")
    for place in (path, public):
        if place.exists():
            raise UserError(f"{place} is there already; a key is never written over, choose another name")
    key = keys.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from None
    write_bytes(public, key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(key: Path, folder: Path) -> list[Path]:
    """Sign the bundle in `folder`, and its engine if it has one, after a check that both are whole; gives the signatures' files."""
    keys, serialization = _library()
    private = _read_key(key, "private", lambda data: serialization.load_pem_private_key(data, None), keys.Ed25519PrivateKey)
    bundle = Bundle.open(folder)
    _check_engine(bundle)
    written = []
    for manifest in _manifests(bundle.folder):
        signature = private.sign(PURPOSE + manifest.read_bytes())
        written.append(manifest.with_name(manifest.name + SUFFIX))
        write_bytes(written[-1], base64.b64encode(signature) + b"\n")
    return written


def open_bundle(name_or_folder: str | Path, required_key: str | Path | None) -> Bundle:
    """`Bundle.open`, or `open_signed` where the bundle must be signed with the private half of `required_key`."""
    return Bundle.open(name_or_folder) if required_key is None else open_signed(name_or_folder, required_key)


def open_signed(name_or_folder: str | Path, key: str | Path) -> Bundle:
    """As `Bundle.open`, for a bundle that the holder of the public key `key` signed, engine and all.

    Raises UserError: no such key, a signature that is missing or another's, and whatever makes `Bundle.open` refuse."""
    keys, serialization = _library()
    public = _read_key(Path(key), "public", serialization.load_pem_public_key, keys.Ed25519PublicKey)
    bundle = Bundle.open(name_or_folder)
    signed = [_verified(public, key, manifest) for manifest in _manifests(bundle.folder)]
    if json.loads(signed[0]) != bundle.manifest:
        raise UserError(f"bundle {bundle.folder} changes while it is opened; open it again")
    bundle = replace(bundle, signed_engine=hashlib.sha256(signed[1]).hexdigest() if len(signed) > 1 else "")
    _check_engine(bundle)
    return bundle


def _verified(public: Any, key: str | Path, manifest: Path) -> bytes:
    """The manifest's bytes, just as they were signed."""
    from cryptography.exceptions import InvalidSignature

    signed = manifest.with_name(manifest.name + SUFFIX)
    try:
        image = read_bytes(manifest, MOST_MANIFEST_BYTES)
        signature = base64.b64decode(read_bytes(signed, MOST_SIGNATURE_BYTES), validate=False)
    except FileNotFoundError:
        raise UserError(f"{manifest} is not signed, and a signature by {key} is required; use a bundle that its maker signed") from None
    except (OSError, binascii.Error):
        raise UserError(f"{signed} is not a readable signature of a manifest; get the bundle again from its maker") from None
    try:
        public.verify(signature, PURPOSE + image)
    except InvalidSignature:
        raise UserError(f"{manifest} was not signed with the key of {key}, or was altered since; do not use it") from None
    return image


def _manifests(folder: Path) -> list[Path]:
    engine = folder / ENGINE / "manifest.json"
    return [folder / "manifest.json", *([engine] if engine.is_file() else [])]


def _check_engine(bundle: Bundle) -> None:
    """Raises UserError where the engine's files are not those of its manifest."""
    engine = EngineFolder.open(bundle)
    for graph in engine.graphs if engine is not None else ():
        engine.plan(graph)  # type: ignore[union-attr]


def _read_key(path: Path, kind: str, load: Any, wanted: type) -> Any:
    try:
        key = load(path.read_bytes())
    except OSError as error:
        raise UserError(f"the {kind} key {path} cannot be read: {error.strerror}; python -m {PROGRAM} keygen makes one") from None
    except (ValueError, TypeError):
        key = None
    except Exception as error:  # the library has one for keys of kinds that it does not know
        if type(error).__name__ != "UnsupportedAlgorithm":
            raise
        key = None
    if not isinstance(key, wanted):
        raise UserError(f"{path} is not the {kind} half of an Ed25519 key in PEM; python -m {PROGRAM} keygen makes one")
    return key


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UserError("signatures need the package cryptography: pip install 'flashlips-edge[sign]'") from None
    return ed25519, serialization


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 with one sentence."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Signatures of bundles, by Ed25519.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("keygen", help="make a key").add_argument(
        "key", type=Path, help="where the private key goes; KEY.pub is its public half"
    )
    for name, key, what in (("sign", "the private key", "sign a bundle"), ("verify", "the public key", "check a bundle")):
        each = commands.add_parser(name, help=what)
        each.add_argument("key", type=Path, help=key)
        each.add_argument("bundle", type=Path, help="the bundle's folder")
    try:
        options = parser.parse_args(arguments)
        if options.command == "keygen":
            print(f"{options.key}: keep it secret; {keygen(options.key)}: give it to those who check")
        elif options.command == "sign":
            print(f"signed: {', '.join(str(path) for path in sign(options.key, options.bundle))}")
        else:
            bundle = open_signed(options.bundle, options.key)
            print(f"{bundle.folder}: signed with the key of {options.key}, and whole")
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
