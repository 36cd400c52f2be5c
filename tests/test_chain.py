"""From crops to pictures on a GPU: nothing comes to the host between the graphs, what is under way is not disturbed, memory is bounded.

The GPU is a stand-in (standins.py) that does everything as late as it may: what was not ordered comes out as something else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import helper, numpy_helper
from paste_kernels import PasteDriver, write_kernels
from standins import Driver, tensorrt
from test_engines import built, orin_bundle
from test_quantize_bundle import _save as save_graph
from test_quantize_bundle import convolutional
from tiny_bundle import CELLS, CHANNELS, SIZE

from flashlips_edge.bundle import Bundle, write_manifest
from flashlips_edge.engines import choice
from flashlips_edge.engines.cuda import Device
from flashlips_edge.engines.engine_folder import digest_of
from flashlips_edge.engines.transfers import CHUNK, Slot, Slots
from flashlips_edge.face.crop import Crop
from flashlips_edge.face.detect import Box
from flashlips_edge.media.frames import Frame
from flashlips_edge.talking import chain as chains
from flashlips_edge.talking.chain import DeviceChain, DevicePicture, HostChain
from flashlips_edge.talking.editing import begin_mouths, edit_mouths
from flashlips_edge.talking.identity import Identity
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.target import Target

TRANSFORM = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
random = np.random.default_rng(0)
CROPS = random.integers(0, 256, (8, SIZE, SIZE, 3)).astype(np.uint8)
NEAR = 8  # levels: OpenCV samples at whole 32nds of a pixel, and these crops are noise
LIPS = random.random((8, 12)).astype(np.float32)


def telling(folder: Path) -> Bundle:
    """Networks whose pictures tell each reference from the others, and a decoder that takes parts of latents."""
    convolutional(folder)
    numbers = np.random.default_rng(1)
    latent, references = ["B", CHANNELS, CELLS, CELLS], ["B", 4 * CHANNELS, CELLS, CELLS]
    first, shape = (
        numpy_helper.from_array(np.eye(12, 1, dtype=np.float32), "first"),
        numpy_helper.from_array(np.array([-1, 1, 1, 1]), "shape"),
    )
    nodes = [
        helper.make_node("MatMul", ["lips", "first"], ["open"]),
        helper.make_node("Reshape", ["open", "shape"], ["brightness"]),
        helper.make_node("Conv", ["reference_latents", "weight", "bias"], ["seen"], "conv", kernel_shape=[1, 1]),
        helper.make_node("Sum", ["latent", "brightness", "seen"], ["edited_latent"]),
    ]
    inputs = {"latent": latent, "reference_latents": references, "lips": ["B", 12]}
    seen = numbers.normal(size=(CHANNELS, 4 * CHANNELS, 1, 1), scale=0.1)
    save_graph(folder, "editor", inputs, {"edited_latent": latent}, nodes, seen, [first, shape])
    decode = numbers.normal(size=(3 * 64, CHANNELS, 1, 1), scale=0.05)
    fine = helper.make_node("Conv", ["edited_latent", "weight", "bias"], ["fine"], "conv", kernel_shape=[1, 1])
    shuffle = helper.make_node("DepthToSpace", ["fine"], ["image"], blocksize=8, mode="CRD")
    part, image = ["B", CHANNELS, "rows", CELLS], ["B", 3, "height", SIZE]
    save_graph(folder, "latent_decoder", {"edited_latent": part}, {"image": image}, [fine, shuffle], decode)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("schema", "files")})
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """The same networks on the CPU."""
    return Networks(orin_bundle(tmp_path_factory.mktemp("orin") / "bundle", telling))


@pytest.fixture(scope="module")
def engines(host: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with engines."""
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    shutil.copytree(host.bundle.folder, folder)
    with Device(Driver()) as device:
        built(Bundle.open(folder), device, tensorrt())
    return folder


@pytest.fixture()
def driver() -> PasteDriver:
    return PasteDriver()


@pytest.fixture()
def networks(engines: Path, driver: PasteDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Networks]:
    """On a GPU."""
    with on_gpu(engines, driver, monkeypatch) as networks:
        yield networks


@pytest.fixture()
def pasting(engines: Path, driver: PasteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Networks]:
    """On a GPU, from a bundle with kernels that paste."""
    shutil.copytree(engines, tmp_path / "bundle")
    with_kernels(tmp_path / "bundle", driver)
    with on_gpu(tmp_path / "bundle", driver, monkeypatch) as networks:
        yield networks


def with_kernels(folder: Path, driver: PasteDriver, listed: bool = True, **changes: Any) -> None:
    write_kernels(folder / "cubins", SIZE)
    manifest = json.loads((folder / "cubins" / "manifest.json").read_text())
    driver.entries = {entry["name"]: entry for entry in manifest["kernels"]}
    (folder / "cubins" / "manifest.json").write_text(json.dumps(manifest | changes))
    if listed:
        bundle = json.loads((folder / "manifest.json").read_text())
        files = [path for path in (folder / "cubins").rglob("*") if path.is_file()]
        bundle["files"] |= {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        (folder / "manifest.json").write_text(json.dumps(bundle))
        engine = json.loads((folder / "engine" / "manifest.json").read_text()) | {"bundle": digest_of(Bundle.open(folder))}
        (folder / "engine" / "manifest.json").write_text(json.dumps(engine))


@contextmanager
def on_gpu(engines: Path, driver: PasteDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Networks]:
    with Device(driver) as device:
        monkeypatch.setattr(choice, "_device", lambda: device)
        monkeypatch.setattr(choice, "load_library", lambda name: tensorrt())
        monkeypatch.setattr(choice, "_loaded", OrderedDict())
        chains.device_chain.cache_clear()
        yield Networks(Bundle.open(engines))
    assert not driver.held, "the device kept something"


def identity(networks: Networks) -> Identity:
    return Identity.of(networks, list(CROPS[:6]))


def targets(numbers: list[int], live: bool = False) -> list[Target]:
    frame = Frame(np.zeros((SIZE, SIZE, 3), np.uint8), 0)
    return [Target(frame, Crop(CROPS[i], TRANSFORM), None, index=None if live else i) for i in numbers]


def faces(numbers: list[int]) -> list[Target]:
    """Targets in frames of two sizes, larger than their crops and smaller, one at the edge."""
    drawn = np.random.default_rng(2)
    found = []
    for i in numbers:
        height, width = ((260, 330), (700, 800))[i % 2]
        picture = cv2.resize(drawn.integers(0, 256, (20, 24, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        side = width * (0.35 if i % 3 else 0.7)
        found.append(Target.of(Frame(picture, i), Box(width * 0.3, height * 0.2, side, side), SIZE, i))
    return found


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference, levels."""
    return int(np.abs(a.astype(int) - b).max())


def test_the_mouth_is_pasted_on_the_gpu_too(pasting: Networks, host: Networks, driver: PasteDriver) -> None:
    shown, face, on_host = faces([0, 1, 2, 3, 4]), identity(pasting), identity(host)
    known: dict[int, chains.Latent] = {}
    for _ in range(2):
        edited = edit_mouths(pasting, shown, LIPS[:5], face, known)
        expected = edit_mouths(host, shown, LIPS[:5], on_host, {})
        copies = driver.count["cuMemcpyDtoHAsync"]
        for target, mine, theirs in zip(shown, edited, expected):
            wanted = target.paint(theirs).image
            assert apart(wanted, target.frame.image) > 20, "something was pasted"
            assert apart(target.paint(mine).image, wanted) <= NEAR
        assert driver.count["cuMemcpyDtoHAsync"] == copies + 5, "what was pasted, and nothing else, comes to the host"
        same(np.asarray(edited[2]), expected[2])
    assert driver.launched[:4] == [
        f"paste_back_{name}_1x160{down}" for name, down in (("change", ""), ("blur", ""), ("blur", "_down"), ("blend_rgb", ""))
    ]


def test_pictures_are_pasted_in_any_order_and_when_others_are_under_way(pasting: Networks, host: Networks) -> None:
    face, on_host, shown = identity(pasting), identity(host), faces(list(range(8)))
    known: dict[int, chains.Latent] = {}
    batches = [shown[:3], shown[3:6], shown[6:]]
    begun = [begin_mouths(pasting, batch, LIPS[: len(batch)], face, known) for batch in batches]
    made = [list(finish()) for finish in begun]
    wanted = [edit_mouths(host, batch, LIPS[: len(batch)], on_host, {}) for batch in batches]  # in the same order: references are held
    for batch, edited, expected in reversed(list(zip(batches, made, wanted))):
        for target, mine, theirs in reversed(list(zip(batch, edited, expected))):
            assert apart(target.paint(mine).image, target.paint(theirs).image) <= NEAR


def test_a_crop_that_leaves_nothing_to_paste_is_left_alone(pasting: Networks) -> None:
    target = faces([0])[0]
    (edited,) = edit_mouths(pasting, [target], LIPS[:1], identity(pasting), {})
    assert target.crop is not None and target.surroundings is not None
    away = target.crop._replace(transform=target.crop.transform + np.array([[0, 0, 0], [0, 0, -9000]], np.float32))
    assert isinstance(edited, DevicePicture) and edited.paste_patch(target.surroundings, away)[2].size == 0


@pytest.mark.parametrize(
    "changes", [{"capability": 90}, {"kernels": []}, {"listed": False}], ids=["another GPU", "none", "not the bundle's"]
)
def test_without_kernels_for_it_the_host_pastes(
    changes: dict[str, Any], engines: Path, host: Networks, driver: PasteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(engines, tmp_path / "bundle")
    with_kernels(tmp_path / "bundle", driver, **changes)
    with on_gpu(tmp_path / "bundle", driver, monkeypatch) as networks:
        (edited,) = edit_mouths(networks, faces([0]), LIPS[:1], identity(networks), {})
        assert isinstance(edited, np.ndarray) and not driver.launched


def edit(networks: Networks, numbers: list[int], known: dict[int, chains.Latent] | None = None) -> np.ndarray:
    return np.stack(edit_mouths(networks, targets(numbers, known is None), LIPS[numbers], identity(networks), known))


def same(given: Any, expected: Any) -> None:
    np.testing.assert_allclose(given, expected, atol=0.2)  # of 255: kept latents are halves on the host, and whole on the GPU


@pytest.mark.parametrize("numbers", [[3], [0, 1, 2, 3], [5, 4, 3, 2, 1, 0]], ids=["one", "batch", "more than the engine takes at once"])
def test_pictures_are_those_of_the_host(numbers: list[int], networks: Networks, host: Networks) -> None:
    assert isinstance(networks.chain, DeviceChain) and isinstance(host.chain, HostChain)
    on_device: dict[int, chains.Latent] = {}
    on_host: dict[int, chains.Latent] = {}
    for _ in range(3):  # encoded, known, and from graphs that were captured
        same(edit(networks, numbers, on_device), edit(host, numbers, on_host))
    same(edit(networks, numbers), edit(host, numbers))
    assert all(isinstance(latent, Slot) for latent in on_device.values()) and sorted(on_device) == sorted(numbers)
    same(np.asarray(on_device[3]), np.asarray(on_host[3]))


def test_nothing_comes_to_the_host_between_the_graphs(networks: Networks, driver: Driver) -> None:
    face, known = identity(networks), dict[int, chains.Latent]()

    def copies(numbers: list[int]) -> tuple[int, int]:
        names = ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
        before = [driver.count.get(name, 0) for name in names]
        edit_mouths(networks, targets(numbers), LIPS[numbers], face, known)
        up, down = (driver.count[name] - count for name, count in zip(names, before))
        return up, down

    copies([0, 1])  # references that this mouth needs are encoded
    assert copies([2, 3])[1] == 1
    assert copies([2, 3]) == (1, 1), "lips in, pictures out"
    waits = driver.count.get("cuStreamSynchronize", 0)
    copies([0, 3])
    assert driver.count.get("cuStreamSynchronize", 0) == waits


def test_what_is_under_way_is_not_disturbed(networks: Networks, host: Networks) -> None:
    known: dict[int, chains.Latent] = {}
    numbers = [[0, 1], [2, 3], [4, 5], [6, 7], [1, 6]]
    on_host = identity(host)
    expected = [edit_mouths(host, targets(each), LIPS[each], on_host, {}) for each in numbers]
    for order in (range(5), reversed(range(5)), (3, 0, 4, 1, 2)):
        face = identity(networks)  # who keeps its references from frame to frame, in the order in which they are begun
        begun = [begin_mouths(networks, targets(each), LIPS[each], face, known) for each in numbers]
        for i in order:
            same(begun[i](), expected[i])


def test_sessions_in_several_threads_get_their_own_pictures(networks: Networks, host: Networks) -> None:
    expected = [edit_mouths(host, targets([i]), LIPS[[i]], identity(host), {})[0] for i in range(8)]
    known: list[dict[int, chains.Latent]] = [{} for _ in range(8)]
    faces = [identity(networks) for _ in range(8)]

    def speak(i: int) -> np.ndarray:
        for _ in range(3):
            picture = edit_mouths(networks, targets([i]), LIPS[[i]], faces[i], known[i])[0]
        return picture

    with ThreadPoolExecutor(4) as pool:
        for given, wanted in zip(pool.map(speak, range(8), timeout=60), expected):
            same(given, wanted)


def test_latents_beyond_their_share_of_memory_are_kept_by_the_host(
    networks: Networks, host: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "LATENTS_BYTES", 7 * 16 * 20 * 20 * 4)
    known: dict[int, chains.Latent] = {}
    face, on_host = identity(networks), identity(host)
    for numbers in ([0, 1, 2], [3, 4, 5], [6, 7], [0, 3, 6, 7]):
        given = edit_mouths(networks, targets(numbers), LIPS[numbers], face, known)
        same(given, edit_mouths(host, targets(numbers), LIPS[numbers], on_host, {}))
    kinds = [type(known[i]) for i in range(8)]
    assert Slot in kinds and np.ndarray in kinds


def test_bundles_opened_in_turn_take_no_more_memory_than_those_that_are_kept(
    engines: Path, driver: PasteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        shutil.copytree(engines, tmp_path / str(number))
    with_kernels(tmp_path / "0", driver)
    memory, held = [], []
    with on_gpu(tmp_path / "0", driver, monkeypatch) as networks:
        for _ in range(3):
            for number in range(3):
                other = Networks(Bundle.open(tmp_path / str(number)))
                edit(other, [0, 1])
                del other
            memory.append(driver.memory)
            held.append(len(driver.held))
        del networks
    assert memory[1] == memory[2] and held[1] == held[2]


def test_a_place_is_free_again_when_nobody_holds_it(driver: Driver) -> None:
    with Device(driver) as device:
        slots = Slots(device, (2, 3), 1 << 20)
        held = [slots.take() for _ in range(CHUNK)]
        assert len({slot.array.address for slot in held}) == CHUNK and driver.count["cuMemAlloc"] == 1
        held.clear()
        held = [slots.take() for _ in range(CHUNK)]
        assert driver.count["cuMemAlloc"] == 1
        held.append(slots.take())
        assert driver.count["cuMemAlloc"] == 2


def test_latents_that_were_prepared_are_brought_to_the_gpu_once(networks: Networks, host: Networks, driver: Driver) -> None:
    prepared = {i: latent.astype(np.float16) for i, latent in enumerate(host.encode(CROPS[:2]))}
    face, on_host, known = identity(networks), identity(host), dict[int, chains.Latent](prepared)
    first, again = (edit_mouths(host, targets([0, 1]), LIPS[:2], on_host, dict[int, chains.Latent](prepared)) for _ in range(2))
    same(edit_mouths(networks, targets([0, 1]), LIPS[:2], face, known), first)
    before = driver.count["cuMemcpyHtoDAsync"]
    same(edit_mouths(networks, targets([0, 1]), LIPS[:2], face, known), again)
    assert driver.count["cuMemcpyHtoDAsync"] == before + 1
