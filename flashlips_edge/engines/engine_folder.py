"""What a device's compiler made of a bundle: the folder `engine` in it. Its manifest is written last; what is wrong is one sentence.

manifest.json         schema, sha256 of the bundle's manifest, library and version, GPU, compute capability, driver, and for each graph
                      its file, sha256, layers by precision as built, golden error; seconds and time of the build
<graph>.<digest>.plan the engine files
timing.cache          what the compiler timed on this device, for the next build
build.log             what it said
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashlips_edge.bundle import GRAPHS, MOST_MANIFEST_BYTES, Bundle
from flashlips_edge.engines.tensorrt import LIBRARIES
from flashlips_edge.errors import UserError
from flashlips_edge.files import read_bytes, write_bytes

SCHEMA = 1
MOST_PLAN_BYTES = 1 << 33
NAME = "engine"
ENTRIES = {"schema": int, "bundle": str, "library": str, "version": str, "gpu": str, "capabilities": list, "driver": int, "graphs": dict}
GRAPH_ENTRIES = {"file": str, "sha256": str, "precision": dict}


@dataclass(frozen=True)
class EngineFolder:
    """The engine of a bundle, its manifest checked; the files are checked when they are read."""

    bundle: Bundle
    manifest: dict[str, Any]

    @staticmethod
    def open(bundle: Bundle) -> EngineFolder | None:
        """The engine in the bundle's folder, None where none was built.

        Raises UserError: a manifest that cannot be read, of a newer schema, of another bundle, or not the one whose signature was checked.
        """
        path = bundle.folder / NAME / "manifest.json"
        if not path.exists() and not bundle.signed_engine:  # a build that was killed leaves its timings, and the manifest is written last
            return None
        try:
            image = read_bytes(path, MOST_MANIFEST_BYTES)
            manifest = json.loads(image.decode())
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{path}: not a readable manifest; {again(bundle)}") from None
        if bundle.signed_engine not in (None, hashlib.sha256(image).hexdigest()):  # it may be loaded long after the signature was checked
            raise UserError(f"{path} was written after its signature was checked; open the bundle again")
        if not isinstance(manifest, dict) or type(manifest.get("schema")) is not int:
            raise UserError(f"{path}: not an engine's manifest; {again(bundle)}")
        if manifest["schema"] > SCHEMA:
            said = f"schema {manifest['schema']} is newer than {SCHEMA}, the newest this version reads"
            raise UserError(f"{path}: {said}; update flashlips-edge, or {again(bundle)}")
        wrong = [key for key, kind in ENTRIES.items() if type(manifest.get(key)) is not kind]
        wrong += [] if wrong or manifest["library"] in LIBRARIES else ["library"]
        if not wrong:
            wrong = [f"graphs.{name}" for name, entry in manifest["graphs"].items() if name not in GRAPHS or not _is_graph(entry)]
        if wrong:
            raise UserError(f"{path}: the entry {wrong[0]} is missing or malformed; {again(bundle)}")
        if manifest["bundle"] != digest_of(bundle):
            raise UserError(f"{path}: the engine was built from another bundle; {again(bundle)}")
        return EngineFolder(bundle, manifest)

    def check(self, version: str, gpu: str, capability: int) -> None:
        """Raises UserError where the library is of another version, or the GPU another, than those it was built for."""
        made, again_ = self.manifest, again(self.bundle)
        where = f"the engine in {self.bundle.folder}"
        if made["version"] != version:
            raise UserError(f"{where} was built by {made['library']} {made['version']} and this is {version}; {again_}")
        if capability not in made["capabilities"]:
            built_for = " or ".join(f"sm_{each}" for each in made["capabilities"])
            raise UserError(f"{where} is for {built_for} and this GPU, {gpu}, is sm_{capability}; {again_}")
        if made["gpu"] and made["gpu"] != gpu:
            raise UserError(f"{where} was built on the GPU {made['gpu']} and this is {gpu}; {again_}")

    def plan(self, graph: str) -> bytes:
        """The engine file of a graph. UserError where it is missing, altered, or outside the folder."""
        entry = self.manifest["graphs"][graph]
        name, folder = entry["file"], self.bundle.folder / NAME
        if Path(name).name != name or "\\" in name or "\0" in name or (folder / name).is_symlink():
            raise UserError(f"engine {folder}: the manifest names {name!r}, which is outside the folder; do not use this engine")
        try:
            image = read_bytes(folder / name, MOST_PLAN_BYTES)
        except FileNotFoundError:
            raise UserError(f"engine {folder}: {name} is missing; {again(self.bundle)}") from None
        except OSError as error:
            raise UserError(f"engine {folder}: {name} cannot be read: {error.strerror}; {again(self.bundle)}") from None
        if hashlib.sha256(image).hexdigest() != entry["sha256"]:
            raise UserError(f"engine {folder}: {name} is cut short or altered, its sha256 is not the manifest's; {again(self.bundle)}")
        return image

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that were compiled."""
        return tuple(self.manifest["graphs"])


def write(
    bundle: Bundle, fields: dict[str, Any], plans: dict[str, bytes], graphs: dict[str, dict[str, Any]], timings: bytes, log: str
) -> None:
    """Write the engine of `bundle`; a build that is killed leaves the old one as it was, since files are named by their content and the
    manifest comes last. What it then no longer names is removed."""
    folder = bundle.folder / NAME
    entries = {}
    for name, image in plans.items():
        digest = hashlib.sha256(image).hexdigest()
        entries[name] = {"file": f"{name}.{digest[:8]}.plan", "sha256": digest, **graphs[name]}
        write_bytes(folder / entries[name]["file"], image)
    if timings:
        write_bytes(folder / "timing.cache", timings)
    write_bytes(folder / "build.log", log.encode())
    manifest = {"schema": SCHEMA, "bundle": digest_of(bundle), **fields, "graphs": entries}
    write_bytes(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    kept = {entry["file"] for entry in entries.values()}
    for old in folder.glob("*.plan"):
        if old.name not in kept:
            old.unlink()


def timings(bundle: Bundle) -> bytes:
    """The timing cache of an earlier build, empty without one."""
    path = bundle.folder / NAME / "timing.cache"
    return path.read_bytes() if path.is_file() else b""


def digest_of(bundle: Bundle) -> str:
    """sha256 of the bundle's manifest, which holds that of every file."""
    return hashlib.sha256((bundle.folder / "manifest.json").read_bytes()).hexdigest()


def again(bundle: Bundle) -> str:
    """The command that rebuilds, as the end of a sentence."""
    target = (bundle.manifest.get("target") or {}).get("name", "NAME")
    if (bundle.manifest.get("target") or {}).get("engine") == "tensorrt_rtx":
        return f"build it again with make engine TARGET={target}"
    return f"build it again with python -m flashlips_edge.engines.build {bundle.folder}"


def _is_graph(entry: Any) -> bool:
    return isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in GRAPH_ENTRIES.items())
