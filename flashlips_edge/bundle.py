"""The bundle: a folder with a manifest, ONNX graphs, golden inputs and outputs. Written whole, verified when opened.

manifest.json     schema, preset, crop size, lips constants, graphs with tensor names, shapes and precision, sha256 of every file;
                  where graphs were quantised also the targets they are for, the precision of each layer and the calibration set's hash
<graph>.onnx      one network each
golden/<graph>.npz  inputs and outputs that the graph must reproduce
MODEL_CARD.md, LICENSE
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flashlips_edge import bundle_shapes
from flashlips_edge.errors import UserError
from flashlips_edge.files import read_bytes, write_bytes

SCHEMA = 1
SHIPPED = Path(__file__).parent / "bundles"
GRAPHS = ("latent_encoder", "editor", "latent_decoder", "lips_encoder", "speech_encoder", "audio_to_lips")
MOST_BYTES, MOST_MANIFEST_BYTES = 1 << 31, 1 << 24  # of a file: no ONNX graph is larger
MOST = 10_000  # of pixels, steps, and a lips vector's numbers
KINDS = {"preset": str, "crop_size": int, "lips": dict, "audio_to_lips": dict, "graphs": dict, "files": dict}
KINDS |= {"targets": list, "quantisation": dict, "target": dict}  # of a bundle for some devices
REQUIRED = ("schema", "preset", "crop_size", "lips", "audio_to_lips", "graphs", "files", "licence")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. ``manifest`` is the parsed manifest.json.

    signed_engine   where a signature was required: sha256 of its engine's signed manifest, "" if it had none; else None
    """

    folder: Path
    manifest: dict[str, Any]
    signed_engine: str | None = None

    @staticmethod
    def open(name_or_folder: str | Path) -> Bundle:
        """Open a shipped bundle by name or any bundle by folder.

        Raises:
            UserError: no such bundle, a manifest that cannot be read or is of a newer schema, a file that is missing, altered
                or outside the folder, graphs of other sizes than the manifest's.
        """
        folder = _find(name_or_folder)
        manifest = _read(folder)
        for name, digest in manifest["files"].items():
            path = _inside(folder, name)
            if not path.is_file():
                raise UserError(f"bundle {folder}: {name} is missing; make the bundle again with make bundle")
            try:
                image = read_bytes(path, MOST_BYTES)
            except OSError as error:
                problem = f"{name} cannot be read: {error.strerror}"
                raise UserError(f"bundle {folder}: {problem}; make the bundle again with make bundle") from None
            if hashlib.sha256(image).hexdigest() != digest:
                raise UserError(
                    f"bundle {folder}: {name} was altered, its sha256 is not the manifest's; make the bundle again with make bundle"
                )
        for graph in GRAPHS:
            entry = manifest["graphs"].get(graph)
            if not isinstance(entry, dict) or entry.get("file") not in list(manifest["files"]):
                raise UserError(
                    f"bundle {folder}: the manifest lists no file for the graph {graph}; make the bundle again with make bundle"
                )
        sizes = manifest["audio_to_lips"]
        graphs = {graph: _inside(folder, manifest["graphs"][graph]["file"]) for graph in GRAPHS}
        bundle_shapes.check(graphs, manifest["crop_size"], sizes["window"], sizes["previous"], sizes["emotion"])
        return Bundle(folder, manifest)

    @property
    def preset(self) -> str:
        return self.manifest["preset"]

    @property
    def crop_size(self) -> int:
        """Side of the face crop in pixels."""
        return self.manifest["crop_size"]

    @property
    def lips_opening(self) -> np.ndarray:
        """float32 [12]: the direction in lips space along which mouths open."""
        return np.array(self.manifest["lips"]["opening"], np.float32)

    @property
    def lips_closed(self) -> np.ndarray:
        """float32 [12]: a closed mouth, for faces that never showed theirs."""
        return np.array(self.manifest["lips"]["closed"], np.float32)

    @property
    def lips_spoken(self) -> np.ndarray:
        """float32 [12]: from a closed mouth to an open one, as far as mouths go in speech; nought where a bundle does not say."""
        return np.array(self.manifest["lips"].get("spoken", [0.0] * 12), np.float32)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that the graphs were made for; none named: any."""
        return tuple(self.manifest.get("targets", ()))

    def precision(self, graph: str) -> str:
        """What a graph computes in: ``fp32``, ``int8+fp16`` and the like. Its entry's ``layers`` has it layer by layer."""
        return self.manifest["graphs"][graph].get("precision", "fp32")

    def read(self, name: str) -> bytes:
        """A file of the bundle. UserError if it is no longer what the manifest says: it may be read long after `open`."""
        try:
            image = read_bytes(_inside(self.folder, name), MOST_BYTES)
        except OSError:
            image = b""
        if hashlib.sha256(image).hexdigest() != self.manifest["files"].get(name):
            raise UserError(f"bundle {self.folder}: {name} was altered since the bundle was opened, or is none of its files; open it again")
        return image

    def graph_path(self, graph: str) -> Path:
        return _inside(self.folder, self.manifest["graphs"][graph]["file"])

    def golden(self, graph: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs, and the outputs that they must give within ``golden_tolerance`` of the manifest's entry."""
        with np.load(self.folder / "golden" / f"{graph}.npz", allow_pickle=False) as arrays:
            inputs = {k.removeprefix("in."): arrays[k] for k in arrays.files if k.startswith("in.")}
            outputs = {k.removeprefix("out."): arrays[k] for k in arrays.files if k.startswith("out.")}
        return inputs, outputs


def write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    """Write manifest.json for the files that stand in ``folder``, with their sha256; the manifest comes last."""
    names = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p != folder / "manifest.json" and not p.name.startswith(".")
    )
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest = {"schema": SCHEMA, **fields, "files": files}
    write_bytes(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")


def _find(name_or_folder: str | Path) -> Path:
    for folder in (Path(name_or_folder), SHIPPED / str(name_or_folder)):
        if (folder / "manifest.json").is_file():
            return folder
    names = sorted(p.parent.name for p in SHIPPED.glob("*/manifest.json"))
    near = difflib.get_close_matches(str(name_or_folder), names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
        f"--bundle {name_or_folder}: no folder with a manifest.json and none of the shipped bundles ({', '.join(names) or 'none'}){hint}"
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(read_bytes(path, MOST_MANIFEST_BYTES).decode())
    except OSError as error:
        raise UserError(f"{path}: the manifest cannot be read: {error.strerror}; make the bundle again with make bundle") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a readable manifest; make the bundle again with make bundle") from None
    if not isinstance(manifest, dict) or type(manifest.get("schema")) is not int:
        raise UserError(f"{path}: not a bundle's manifest; make the bundle again with make bundle")
    if manifest["schema"] > SCHEMA:
        raise UserError(f"{path}: schema {manifest['schema']} is newer than {SCHEMA}, the newest this version reads; update flashlips-edge")
    if (wrong := _malformed(manifest)) is not None:
        raise UserError(f"{path}: the entry {wrong} is missing or malformed; make the bundle again with make bundle")
    for vector in ("opening", "closed", *({"spoken"} & set(manifest["lips"]))):
        if not _is_lips(manifest["lips"].get(vector)):
            raise UserError(f"{path}: lips.{vector} must be 12 numbers; make the bundle again with make bundle")
    return manifest


def _malformed(manifest: dict[str, Any]) -> str | None:
    """The first entry that is missing or cannot be used."""
    if missing := [key for key in REQUIRED if key not in manifest]:
        return missing[0]
    for key, kind in KINDS.items():
        if key in manifest and type(manifest[key]) is not kind:
            return key
    if not 0 < manifest["crop_size"] <= MOST:
        return "crop_size"
    for key in ("window", "previous", "emotion"):
        if type(size := manifest["audio_to_lips"].get(key)) is not int or not 0 <= size <= MOST:
            return f"audio_to_lips.{key}"
    for name, entry in manifest["graphs"].items():
        if type(entry) is dict and type(entry.get("precision", "")) is not str:
            return f"graphs.{name}.precision"
    return None if all(type(target) is str for target in manifest.get("targets", ())) else "targets"


def _is_lips(vector: Any) -> bool:
    numbers = isinstance(vector, list) and len(vector) == 12 and all(type(each) in (int, float) for each in vector)
    return numbers and all(abs(each) <= MOST for each in vector)


def _inside(folder: Path, name: Any) -> Path:
    """The path of a file of the bundle; names that would leave the folder are refused."""
    pure = PurePosixPath(str(name))
    if not isinstance(name, str) or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UserError(f"bundle {folder}: the manifest names {name!r}, which is outside the bundle; do not use this bundle")
    path = folder / pure
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        path.is_file()
    except (OSError, RuntimeError):  # a name that is too long, a link to itself
        raise UserError(f"bundle {folder}: {name[:80]} cannot be read; make the bundle again with make bundle") from None
    if not inside:
        raise UserError(f"bundle {folder}: {name} leads outside the bundle; do not use this bundle")
    return path
