"""The launcher of compiled kernels, against a driver that records what it is told. On a GPU: `python -m kernels.aot.on_gpu`."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.engines.cubin import CubinKernels, pack, read_manifest
from flashlips_edge.errors import UserError

CUBIN = b"not machine code, and nobody here runs it"


class Array:
    """What the launcher sees of an array on a GPU."""

    def __init__(self, address: int, typestr: str = "<f2", stream: int | None = None) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "typestr": typestr, "shape": (64,), "stream": stream, "version": 3}


class Driver:
    """Stands in for cuda.bindings.driver: an sm_87 GPU without a context. `calls` is what it was asked for."""

    class CUdevice_attribute:  # noqa: N801
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = "major"
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = "minor"

    class CUfunction_attribute:  # noqa: N801
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = "shared"

    def __init__(self, **results: tuple[Any, ...]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.results = {
            "cuDeviceGet": (0, 0),
            "cuCtxGetCurrent": (0, 0),
            "cuDevicePrimaryCtxRetain": (0, 77),
            "cuModuleLoadData": (0, 11),
            "cuModuleGetFunction": (0, 12),
            **results,
        }

    def __getattr__(self, function: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((function, *arguments))
            if function == "cuDeviceGetAttribute":
                return (0, {"major": 8, "minor": 7}[arguments[0]])
            return self.results.get(function, (0,))

        return call

    def of(self, function: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == function]


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "name": "scale",
        "operation": "scaling",
        "cubin": "scale.cubin",
        "sha256": hashlib.sha256(CUBIN).hexdigest(),
        "entry": "scale_kernel",
        "grid": [4, 2, 1],
        "block": [128, 1, 1],
        "shared": 1024,
        "hidden": 2,
        "cooperative": False,
        "arguments": [
            {"name": "x", "type": "*fp16", "aligned": True},
            {"name": "factor", "type": "fp32", "aligned": False},
            {"name": "count", "type": "i32", "aligned": False},
        ],
        **changes,
    }


def write(folder: Path, manifest: Any = None, **changes: Any) -> Path:
    manifest = manifest if manifest is not None else {"schema": 1, "capability": 87, "kernels": [entry(**changes)]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "scale.cubin").write_bytes(CUBIN)
    return folder


def test_a_launch_has_the_manifest_s_shape_and_the_arguments_in_order(tmp_path: Path) -> None:
    driver = Driver()
    kernels = CubinKernels(write(tmp_path), driver)
    assert kernels.operations == {"scale": "scaling"}
    kernels.launch("scale", {"count": 1000, "x": Array(4096), "factor": 2}, stream=5)
    assert driver.of("cuModuleLoadData") == [(CUBIN,)]
    assert driver.of("cuModuleGetFunction") == [(11, b"scale_kernel")]
    assert driver.of("cuCtxSetCurrent") == [(77,)]
    values, types = (4096, 2.0, 1000, 0, 0), (ctypes.c_void_p, ctypes.c_float, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
    assert driver.of("cuLaunchKernel") == [(12, 4, 2, 1, 128, 1, 1, 1024, 5, (values, types), 0)]
    assert not driver.of("cuFuncSetAttribute")
    kernels.launch("scale", {"count": 1000, "x": Array(4096), "factor": 2}, grid=(9, 1, 1))
    assert driver.of("cuLaunchKernel")[1][1:4] == (9, 1, 1)
    kernels.close()
    assert driver.of("cuModuleUnload") == [(11,)]
    with pytest.raises(ValueError, match="'scale' is not one of"):
        kernels.launch("scale", {})


def test_a_context_that_is_current_is_used(tmp_path: Path) -> None:
    driver = Driver(cuCtxGetCurrent=(0, 33))
    CubinKernels(write(tmp_path), driver)
    assert not driver.of("cuDevicePrimaryCtxRetain")
    assert not driver.of("cuCtxSetCurrent")


def test_much_shared_memory_is_asked_for(tmp_path: Path) -> None:
    driver = Driver()
    CubinKernels(write(tmp_path, shared=60000), driver)
    assert driver.of("cuFuncSetAttribute") == [(12, "shared", 60000)]


def test_programs_that_wait_for_each_other_are_launched_together(tmp_path: Path) -> None:
    driver = Driver()
    CubinKernels(write(tmp_path, cooperative=True), driver).launch("scale", {"x": Array(0), "factor": 1.0, "count": 1})
    ((*shape, (values, _)),) = driver.of("cuLaunchCooperativeKernel")
    assert shape == [12, 4, 2, 1, 128, 1, 1, 1024, 0]
    assert values == (0, 1.0, 1, 0, 0)


@pytest.mark.parametrize(("producer", "stream", "waited"), [(7, 5, [(7,)]), (5, 5, []), (1, 0, []), (None, 5, [])])
def test_an_array_still_being_written_on_another_stream_is_waited_for(
    producer: int | None, stream: int, waited: list[tuple[int]], tmp_path: Path
) -> None:
    driver = Driver()
    kernels = CubinKernels(write(tmp_path), driver)
    kernels.launch("scale", {"x": Array(16, stream=producer), "factor": 1.0, "count": 1}, stream)
    assert driver.of("cuStreamSynchronize") == waited


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": Array(0), "factor": 1.0}, r"takes the arguments \['x', 'factor', 'count'\], not \['factor', 'x'\]"),
        ({"x": 3, "factor": 1.0, "count": 1}, "x must be an array on the GPU, not int"),
        ({"x": Array(0, "<f4"), "factor": 1.0, "count": 1}, "x must be of type fp16, not <f4"),
        ({"x": Array(8), "factor": 1.0, "count": 1}, "x must be divisible by 16, as it was compiled for, and is 8"),
        ({"x": Array(0), "factor": "2", "count": 1}, "factor must be a number of type fp32, not '2'"),
        ({"x": Array(0), "factor": 1.0, "count": 1.5}, "count must be a number of type i32, not 1.5"),
        ({"x": Array(0), "factor": 1.0, "count": 2**31}, "count must be a number of type i32, not 2147483648"),
    ],
    ids=["missing", "not an array", "other type", "not aligned", "text", "fraction", "too large"],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pack(entry(), arguments)


@given(
    address=st.integers(0, 2**48).map(lambda n: 16 * n),
    factor=st.floats(width=32, allow_nan=False),
    count=st.integers(-(2**31), 2**31 - 1),
)
def test_packed_values_come_back_out_of_their_types(address: int, factor: float, count: int) -> None:
    values, types, _ = pack(entry(), {"x": Array(address), "factor": factor, "count": count})
    back = [kind(value).value for kind, value in zip(types, values)]
    assert back == [address or None, factor, count, None, None]


def test_the_driver_s_own_bindings_take_what_is_packed() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    values, types, _ = pack(entry(), {"x": Array(0), "factor": 1.0, "count": 1})
    try:
        (error,) = driver.cuLaunchKernel(0, 1, 1, 1, 1, 1, 1, 0, 5, (values, types), 0)
        assert int(error) != 0  # function 0 is none
    except RuntimeError as missing:  # no driver: what was packed is read before it is looked for
        assert "driver" in str(missing)


def test_without_a_driver_the_sentence_says_so(tmp_path: Path) -> None:
    class Missing(Driver):
        def cuInit(self, flags: int) -> tuple[int]:  # noqa: N802
            raise RuntimeError("libcuda.so.1: cannot open shared object file")

    with pytest.raises(UserError, match="there is no NVIDIA driver on this machine"):
        CubinKernels(write(tmp_path), Missing())
    with pytest.raises(UserError, match=r"does not start \(CUDA error 100\)"):
        CubinKernels(write(tmp_path), Driver(cuInit=(100,)))


def test_without_the_bindings_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(UserError, match="pip install cuda-bindings"):
        CubinKernels(write(tmp_path))


def test_another_gpu_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    write(tmp_path, {"schema": 1, "capability": 90, "kernels": [entry()]})
    with pytest.raises(UserError, match=r"are for sm_90 and this GPU is sm_87: .*python -m kernels.aot"):
        CubinKernels(tmp_path, Driver())


def test_a_failing_driver_call_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cuModuleLoadData failed with CUDA error 209"):
        CubinKernels(write(tmp_path), Driver(cuModuleLoadData=(209, 0)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cubin": "../scale.cubin"}, "outside the folder"),
        ({"cubin": "other.cubin"}, "other.cubin is missing"),
        ({"sha256": "0" * 64}, "scale.cubin was altered"),
        ({"grid": [4, 0, 1]}, "kernel 0 is malformed"),
        ({"shared": "much"}, r"kernel 0 is malformed \(shared\)"),
        ({"hidden": 1 << 40}, "kernel 0 is malformed"),
        ({"arguments": [{"name": "x", "type": "*fp4", "aligned": True}]}, "kernel 0 is malformed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_that_is_not_as_compiled_is_refused_before_the_gpu_is_touched(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    driver = Driver()
    with pytest.raises(UserError, match=sentence):
        CubinKernels(write(tmp_path, **changes), driver)
    assert not driver.calls


def test_a_manifest_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="schema 99 is newer than 1"):
        read_manifest(write(tmp_path, {"schema": 99}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "type", "aligned", "x"]), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from([*entry(), "schema", "capability", "kernels"]), value=json_values)
def test_no_manifest_makes_the_reader_stumble(key: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    manifest: dict[str, Any] = {"schema": 1, "capability": 87, "kernels": [entry()]}
    (manifest if key in manifest else manifest["kernels"][0])[key] = value
    folder = write(tmp_path_factory.mktemp("kernels"), manifest)
    try:
        CubinKernels(folder, Driver())
    except UserError as error:
        assert str(folder) in str(error)
