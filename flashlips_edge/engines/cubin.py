"""Kernels compiled ahead of time, run through cuda-bindings: no Triton, no torch.

    kernels = CubinKernels(folder)
    kernels.launch("scale_b1", {"x": x, "y": y, "factor": 2.0, "count": 1024}, stream=stream)

Arrays are anything with `__cuda_array_interface__` (CuPy, torch, numba, pycuda) and stay the caller's; nothing is copied and nothing is
waited for but what the interface asks. Work goes to the context that is current, or else to the device's primary one.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import numbers
from pathlib import Path
from typing import Any

from flashlips_edge.errors import UserError

SCHEMA = 1
SHARED_WITHOUT_ASKING = 48 << 10  # bytes of shared memory that a launch may have before it says so
DTYPES = {  # Triton's pointer type -> the type strings that an array of it may give; bfloat16 has none of its own
    "*i1": ("|b1", "|u1"),
    "*i8": ("|i1",),
    "*u8": ("|u1",),
    "*i16": ("<i2",),
    "*i32": ("<i4",),
    "*i64": ("<i8",),
    "*fp16": ("<f2",),
    "*bf16": ("<V2", "|V2", "<u2", "<i2"),
    "*fp32": ("<f4",),
    "*fp64": ("<f8",),
}
SCALARS: dict[str, Any] = {
    "i1": ctypes.c_int8,
    "i8": ctypes.c_int8,
    "i16": ctypes.c_int16,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "fp32": ctypes.c_float,
    "fp64": ctypes.c_double,
}
ENTRIES = {
    "name": str,
    "operation": str,
    "cubin": str,
    "sha256": str,
    "entry": str,
    "grid": list,
    "block": list,
    "shared": int,
    "hidden": int,
    "cooperative": bool,
    "arguments": list,
}


class CubinKernels:
    """The kernels of a folder that `python -m kernels.aot` wrote, loaded on the first GPU. `entries` are the manifest's, by name.

    `driver` is cuda-bindings' driver module; another object with its functions may stand in for it.
    Raises UserError: a manifest that cannot be read, a file that is missing or altered, no cuda-bindings, no driver, another GPU.
    """

    def __init__(self, folder: str | Path, driver: Any = None) -> None:
        manifest = read_manifest(folder)
        self.operations = {entry["name"]: entry["operation"] for entry in manifest["kernels"]}
        self.entries = {entry["name"]: entry for entry in manifest["kernels"]}
        images = {name: _read_cubin(Path(folder), entry) for name, entry in self.entries.items()}
        self._driver = driver or _import_driver()
        self._start(folder, manifest)
        self._modules = []
        self._functions = {}
        for name, image in images.items():
            module = self._call("cuModuleLoadData", image)
            self._modules.append(module)
            function = self._call("cuModuleGetFunction", module, self.entries[name]["entry"].encode())
            if self.entries[name]["shared"] > SHARED_WITHOUT_ASKING:
                attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call("cuFuncSetAttribute", function, attribute, self.entries[name]["shared"])
            self._functions[name] = function

    def launch(self, name: str, arguments: dict[str, Any], stream: int = 0, grid: tuple[int, int, int] | None = None) -> None:
        """Enqueue kernel `name` on `stream`, a CUstream as a number; arguments by the names in the manifest.

        `grid` in place of the manifest's, where sizes of the shape stayed arguments. Raises ValueError naming
        the argument that is missing, unknown, of another type, or not aligned as it was compiled for.
        """
        if name not in self.entries:
            raise ValueError(f"kernel {name!r} is not one of {sorted(self.entries)}")
        entry = self.entries[name]
        values, types, producers = pack(entry, arguments)
        for producer in producers - {stream or 1}:  # 1 is the legacy default stream, as 0 is
            self._call("cuStreamSynchronize", producer)
        shape = (*(grid or entry["grid"]), *entry["block"], entry["shared"], stream)
        if entry["cooperative"]:
            self._call("cuLaunchCooperativeKernel", self._functions[name], *shape, (values, types))
        else:
            self._call("cuLaunchKernel", self._functions[name], *shape, (values, types), 0)

    def close(self) -> None:
        """Unload the kernels; none may be running."""
        while self._modules:
            self._call("cuModuleUnload", self._modules.pop())
        self.entries, self._functions = {}, {}

    def _start(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        """Make sure of the driver, the GPU and a current context."""
        try:
            (error,) = self._driver.cuInit(0)
        except RuntimeError:  # libcuda itself is missing
            raise UserError("there is no NVIDIA driver on this machine, so its kernels cannot run: install the driver") from None
        if int(error) != 0:
            raise UserError(f"the NVIDIA driver does not start (CUDA error {int(error)}): check that a GPU is there with nvidia-smi")
        device = self._call("cuDeviceGet", 0)
        attributes = self._driver.CUdevice_attribute
        major = self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
        minor = self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
        if (capability := 10 * major + minor) != manifest["capability"]:
            raise UserError(
                f"the kernels in {folder} are for sm_{manifest['capability']} and this GPU is sm_{capability}: "
                f"compile them for it with python -m kernels.aot --target NAME --out {folder}"
            )
        if not int(self._call("cuCtxGetCurrent")):
            self._call("cuCtxSetCurrent", self._call("cuDevicePrimaryCtxRetain", device))

    def _call(self, function: str, *arguments: Any) -> Any:
        """What a driver function gives besides its status. Raises RuntimeError naming function and status."""
        error, *results = getattr(self._driver, function)(*arguments)
        if int(error) != 0:
            raise RuntimeError(f"{function} failed with CUDA error {int(error)}")
        return results[0] if results else None


def pack(entry: dict[str, Any], arguments: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...], set[int]]:
    """Values and ctypes of the kernel's parameters in order, and the streams on which arrays are still being written.

    The null pointers at the end are Triton's scratch memory, which these kernels do without.
    """
    wanted = [argument["name"] for argument in entry["arguments"]]
    if sorted(wanted) != sorted(arguments):
        raise ValueError(f"{entry['name']} takes the arguments {wanted}, not {sorted(arguments)}")
    values: list[Any] = []
    types: list[Any] = []
    producers: set[int] = set()
    for argument in entry["arguments"]:
        name, kind, value = argument["name"], argument["type"], arguments[argument["name"]]
        if kind in DTYPES:
            interface = getattr(value, "__cuda_array_interface__", None)
            if interface is None:
                raise ValueError(f"{entry['name']}: {name} must be an array on the GPU, not {type(value).__name__}")
            if interface["typestr"] not in DTYPES[kind]:
                raise ValueError(f"{entry['name']}: {name} must be of type {kind[1:]}, not {interface['typestr']}")
            value = interface["data"][0]
            types.append(ctypes.c_void_p)
            if interface.get("stream"):
                producers.add(interface["stream"])
        else:
            value = _number(entry["name"], name, kind, value)
            types.append(SCALARS[kind])
        if argument["aligned"] and value % 16 != 0:
            raise ValueError(f"{entry['name']}: {name} must be divisible by 16, as it was compiled for, and is {value}")
        values.append(value)
    hidden = entry["hidden"]
    return (*values, *[0] * hidden), (*types, *[ctypes.c_void_p] * hidden), producers


def _number(kernel: str, name: str, kind: str, value: Any) -> int | float:
    """`value` as a plain number that the type holds."""
    if isinstance(value, numbers.Integral) and not kind.startswith("fp"):
        if SCALARS[kind](int(value)).value == value:
            return int(value)
    elif isinstance(value, numbers.Real) and kind.startswith("fp"):
        return float(value)
    raise ValueError(f"{kernel}: {name} must be a number of type {kind}, not {value!r}")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The parsed manifest.json of a folder of kernels. Raises UserError when it is missing, malformed or of a newer schema."""
    path = Path(folder) / "manifest.json"
    again = f"compile the kernels again with python -m kernels.aot --target NAME --out {folder}"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path}: not a readable manifest; {again}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise UserError(f"{path}: not a manifest of kernels; {again}")
    if manifest["schema"] > SCHEMA:
        raise UserError(f"{path}: schema {manifest['schema']} is newer than {SCHEMA}, the newest this version reads; update flashlips-edge")
    kernels = manifest.get("kernels")
    if not isinstance(manifest.get("capability"), int) or not isinstance(kernels, list):
        raise UserError(f"{path}: the entry capability or kernels is missing or malformed; {again}")
    for entry in kernels:
        wrong = [key for key, kind in ENTRIES.items() if not isinstance(entry, dict) or type(entry.get(key)) is not kind]
        if wrong or not _launchable(entry):
            raise UserError(f"{path}: the kernel {kernels.index(entry)} is malformed{f' ({wrong[0]})' if wrong else ''}; {again}")
    return manifest


def _launchable(entry: dict[str, Any]) -> bool:
    """Whether shapes and arguments are such that a launch can use them."""
    shapes = all(len(entry[key]) == 3 and all(type(n) is int and n > 0 for n in entry[key]) for key in ("grid", "block"))
    return (
        shapes
        and entry["shared"] >= 0
        and 0 <= entry["hidden"] <= 8
        and all(
            isinstance(argument, dict)
            and isinstance(argument.get("name"), str)
            and argument.get("type") in {*DTYPES, *SCALARS}
            and isinstance(argument.get("aligned"), bool)
            for argument in entry["arguments"]
        )
    )


def _read_cubin(folder: Path, entry: dict[str, Any]) -> bytes:
    again = f"compile the kernels again with python -m kernels.aot --target NAME --out {folder}"
    name = entry["cubin"]
    if Path(name).name != name or "\\" in name or "\0" in name:
        raise UserError(f"kernels {folder}: the manifest names {name!r}, which is outside the folder; do not use these kernels")
    try:
        image = (folder / name).read_bytes()
    except OSError:
        raise UserError(f"kernels {folder}: {name} is missing; {again}") from None
    if hashlib.sha256(image).hexdigest() != entry["sha256"]:
        raise UserError(f"kernels {folder}: {name} was altered, its sha256 is not the manifest's; {again}")
    return image


def _import_driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        raise UserError("running compiled kernels needs the package cuda-bindings: pip install cuda-bindings") from None
    return driver
