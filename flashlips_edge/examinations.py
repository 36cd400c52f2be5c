"""What the doctor looks at. Each function is one check; it may crash or hang, since the doctor runs it in a process of its own."""

from __future__ import annotations

import ctypes
import importlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OK, NONE, FAULT = "ok", "none", "FAULT"  # none: not there, and the rest works without it
FREE_GB = 2.0  # a bundle, its engine and an hour of video
COMMAND_S = 10
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
V4L2_QUERY, V4L2_SIZE = 0x80685600, 104  # VIDIOC_QUERYCAP and its answer's bytes
V4L2_CAPTURES = 0x00000001 | 0x00001000  # of a picture in one plane, or in several


@dataclass(frozen=True)
class Finding:
    """state: ok, none or FAULT; `found` is what there is, `do` what to do about it."""

    state: str
    found: str
    do: str = ""


def python() -> Finding:
    found = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding(FAULT, found, "install Python 3.10, 3.11 or 3.12")
    return Finding(OK, found)


def disk() -> Finding:
    free = {place: shutil.disk_usage(place).free / 1e9 for place in (str(Path.cwd()), tempfile.gettempdir())}
    place, least = min(free.items(), key=lambda item: item[1])
    if least < FREE_GB:
        return Finding(FAULT, f"{least:.1f} GB free in {place}", f"make room: {FREE_GB:g} GB are needed")
    return Finding(OK, f"{least:.1f} GB free")


def bundle() -> Finding:
    from flashlips_edge.bundle import GRAPHS, SHIPPED, Bundle
    from flashlips_edge.engines.build import golden_error
    from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
    from flashlips_edge.errors import UserError

    again, found = "install flashlips-edge again", []
    try:
        for name in sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json")):
            shipped, worst = Bundle.open(name), 0.0
            for graph in GRAPHS:
                error = golden_error(shipped, graph, OnnxRuntimeEngine(shipped.graph_path(graph)))
                worst = max(worst, error / shipped.manifest["graphs"][graph]["golden_tolerance"])
                if not worst <= 1:
                    return Finding(FAULT, f"{name}'s graph {graph} answers its golden input wrongly ({error:.1e})", again)
            found.append(f"{name}: {len(GRAPHS)} graphs give their golden outputs, at worst {worst:.0%} of what is allowed")
    except UserError as error:
        return Finding(FAULT, str(error), again)
    return Finding(OK, "; ".join(found)) if found else Finding(FAULT, "no bundle is shipped", again)


def onnx_runtime() -> Finding:
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    found = f"ONNX Runtime {onnxruntime.__version__}: {', '.join(providers)}"
    if "CPU" not in providers:
        return Finding(FAULT, found, "pip install --force-reinstall onnxruntime")
    if "CUDA" not in providers and gpus()[0]:
        cure = "build its engine: docs/orin.md" if platform.machine() == "aarch64" else "pip install onnxruntime-gpu in its place"
        return Finding(OK, found, f"it has no CUDA here; without TensorRT the GPU stays idle: {cure}")
    return Finding(OK, found)


def codecs() -> Finding:
    import av

    missing = []
    for name, mode in (("h264", "r"), ("libx264", "w"), ("aac", "r"), ("aac", "w")):
        try:
            av.codec.Codec(name, mode)  # type: ignore[arg-type]
        except ValueError:
            missing.append(f"{name} ({'write' if mode == 'w' else 'read'})")
    found = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if missing:
        return Finding(FAULT, f"{found} without {', '.join(missing)}", "pip install --force-reinstall --only-binary=av av")
    return Finding(OK, f"{found}: H.264 and AAC")


def cameras() -> Finding:
    import fcntl

    found, closed = [], []
    for path in sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name)):
        answer = bytearray(V4L2_SIZE)
        try:
            with open(path, "rb", buffering=0) as device:
                fcntl.ioctl(device, V4L2_QUERY, answer)
        except PermissionError:
            closed.append(str(path))
            continue
        except OSError:
            continue
        if int.from_bytes(answer[88:92], sys.byteorder) & V4L2_CAPTURES:
            found.append(f"{path} ({answer[16:48].split(bytes(1))[0].decode(errors='replace')})")
    if closed and not found:
        return Finding(FAULT, f"{', '.join(closed)} cannot be opened", "sudo usermod -aG video $USER, then log in again")
    if not found:
        return Finding(NONE, "no camera", "plug one in, or give a video or an rtsp:// address")
    return Finding(OK, ", ".join(found))


def microphone() -> Finding:
    from flashlips_edge.media.microphone import why_none

    return _sound(why_none(), "a microphone", "plug one in, or give --audio or --text")


def loudspeaker() -> Finding:
    from flashlips_edge.media.loudspeaker import why_none

    return _sound(why_none(), "a loudspeaker", "plug one in; results go to a file (--out) or a client (flashlips_edge.serve)")


def _sound(reason: str | None, name: str, without: str) -> Finding:
    if reason is None:
        return Finding(OK, name)
    said, _, do = reason.partition(" (")
    return Finding(NONE, said, do.rstrip(")") or without)


def window() -> Finding:
    from flashlips_edge.media.window import why_none

    reason = why_none()
    return Finding(OK, "a display") if reason is None else Finding(NONE, f"no window: {reason}", "--out writes a file instead")


def gpus() -> tuple[list[str], int, int]:
    """GPUs as the driver names them, CUDA's version of the driver (13020 is 13.2), and the first GPU's compute capability; nothing and
    zeros without a driver. Raises RuntimeError where it does not start."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return [], 0, 0
    if status := library.cuInit(0):
        raise RuntimeError(f"CUDA error {status}")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    names, capability = [], 0
    for number in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        library.cuDeviceGet(ctypes.byref(device), number)
        library.cuDeviceGetName(name, 256, device)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        values = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            values.append(value.value)
        capability = capability or 10 * values[0] + values[1]
        names.append(f"{name.value.decode()} (sm_{values[0]}{values[1]}, {memory.value / 1e9:.0f} GB)")
    return names, version.value, capability


def driver() -> Finding:
    try:
        names, version, _ = gpus()
    except RuntimeError as error:
        return Finding(FAULT, f"the NVIDIA driver does not start ({error})", "check with nvidia-smi; after an update of the driver, reboot")
    if not version:
        return Finding(NONE, "no NVIDIA driver, so networks run on the CPU", "with an NVIDIA GPU: install its driver (JetPack has it)")
    if not names:
        return Finding(FAULT, f"an NVIDIA driver for CUDA {_dotted(version)}, and no GPU", "check with nvidia-smi that the GPU is seen")
    return Finding(OK, f"{', '.join(names)}; the driver takes CUDA up to {_dotted(version)}")


def cuda() -> Finding:
    import importlib.metadata

    try:
        from cuda.bindings import driver as bindings  # noqa: F401
    except ImportError:
        return Finding(NONE, "no cuda-bindings", "for TensorRT and kernels: pip install 'flashlips-edge[cuda]'")
    installed = importlib.metadata.version("cuda-bindings")
    _, version, _ = gpus()
    if version and int(installed.split(".")[0]) > version // 1000:
        do = f"pip install 'cuda-bindings<{version // 1000 + 1}'"
        return Finding(FAULT, f"cuda-bindings {installed} is newer than the driver, which takes CUDA up to {_dotted(version)}", do)
    return Finding(OK, f"cuda-bindings {installed}")


def tensorrt() -> Finding:
    found = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            continue
        except OSError as error:
            return Finding(FAULT, f"{name} does not load: {error}", "install it again, for this CUDA")
        if gpus()[0]:  # without a GPU a runtime would take the process down
            runtime = library.Runtime(library.Logger(library.Logger.ERROR))
            if runtime is None:
                return Finding(FAULT, f"{name} {library.__version__} does not start", "its CUDA must not be newer than the driver's")
        found.append(f"{name} {library.__version__}")
    if not found:
        do = "on a Jetson it comes with JetPack (python3 -m venv --system-site-packages); on a PC: pip install 'flashlips-edge[rtx]'"
        return Finding(NONE, "no TensorRT", do if gpus()[0] else "without an NVIDIA GPU there is no use for it")
    return Finding(OK, ", ".join(found) + ("" if gpus()[0] else " (no GPU here to run engines on)"))


def triton() -> Finding:
    try:
        import triton as library
    except ImportError:
        return Finding(NONE, "no Triton", "none is needed to run kernels that were compiled ahead of time; to compile: pip install triton")
    names, _, capability = gpus()
    if not names:
        return Finding(OK, f"Triton {library.__version__} (no GPU here to launch a kernel on)")
    from flashlips_edge.engines.trial_kernel import launch

    launch(capability)
    return Finding(OK, f"Triton {library.__version__}: a kernel was compiled for sm_{capability}, launched, and its result is right")


def jetson() -> Finding:
    release = Path("/etc/nv_tegra_release")
    if not release.is_file():
        return Finding(NONE, "not a Jetson", "nothing to do")
    modes = Path("/etc/nvpmodel.conf")
    return power(release.read_text(), modes.read_text() if modes.is_file() else "", Path("/sys/class/devfreq"))


def power(release: str, modes: str, frequencies: Path) -> Finding:
    """Power mode and GPU clock of a Jetson; `modes` is its table of them, whose numbers differ from module to module."""
    said = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    found = [f"Jetson Linux {said.group(1)}.{said.group(2)}" if said else "a Jetson"]
    try:
        query = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return Finding(FAULT, f"{found[0]}, and nvpmodel does not answer", "sudo systemctl restart nvpmodel")
    mode = re.search(r"NV Power Mode: (\S+)", query.stdout)
    found.append(f"power mode {mode.group(1) if mode else 'unknown'}")
    do = []
    if not mode or not mode.group(1).startswith("MAXN"):
        fastest = re.search(r"POWER_MODEL ID=(\d+) NAME=MAXN", modes)
        do.append(f"for full speed: sudo nvpmodel -m {fastest.group(1) if fastest else 0}")
    for gpu in sorted([*frequencies.glob("*gpu*"), *frequencies.glob("*ga10b*")]):
        now, least, most = (int((gpu / f"{which}_freq").read_text()) // 1_000_000 for which in ("cur", "min", "max"))
        found.append(f"GPU at {now} of {most} MHz")
        if least < most:
            do.append("for steady clocks: sudo jetson_clocks")
        break
    return Finding(OK, ", ".join(found), "; ".join(do))


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
