"""Which crops of a face an edited frame refers to, and what that costs a live frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_bundle

from flashlips_edge.talking import references as references_module
from flashlips_edge.talking.identity import LOOK_EVERY_NS, GrowingIdentity, sampled
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.references import References, by_likeness


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Networks:
    return Networks(tiny_bundle(tmp_path_factory.mktemp("bundle")), threads=1)


def crop(networks: Networks, level: int, upper: int = 100) -> np.ndarray:
    """A crop whose lower half tells it apart; its upper half is its pose."""
    picture = np.full((networks.crop_size, networks.crop_size, 3), level, np.uint8)
    picture[: networks.crop_size // 2 + 10] = upper
    return picture


def lips(opening: float) -> np.ndarray:
    return np.full(12, opening, np.float32)


def known(networks: Networks, openings: list[float], level: int = 100) -> References:
    """A face seen with these openings in one pose."""
    references = References(networks)
    for i, opening in enumerate(openings):
        references.add(crop(networks, level + i), lips(opening))
    return references


def test_a_frame_refers_to_the_mouths_that_are_most_like_its_own_nearest_first(networks: Networks) -> None:
    openings = [0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0]
    references = known(networks, openings)
    references.encode(list(range(8)))
    given = references.like(crop(networks, 103)[None], lips(0.84)[None])
    wanted = networks.encode(np.stack([crop(networks, 100 + i) for i in (5, 6, 4, 7)]))
    assert np.array_equal(given[0], wanted)


def seen(networks: Networks, faces: list[tuple[float, int]]) -> References:
    """A face seen with these openings, each in a pose of its own, all encoded."""
    references = References(networks)
    for opening, upper in faces:
        references.add(crop(networks, round(100 * opening), upper), lips(opening))
    references.encode(list(range(len(faces))))
    return references


def references_over(references: References, picture: np.ndarray, openings: list[float]) -> list[tuple[bytes, ...]]:
    """Those of one frame after another that shall open so far."""
    given = (references.like(picture[None], lips(opening)[None])[0] for opening in openings)
    return [tuple(np.asarray(latent).tobytes() for latent in four) for four in given]


def test_references_do_not_change_with_every_waver(networks: Networks) -> None:
    references = known(networks, [i / 20 for i in range(21)])
    references.encode(list(range(21)))
    wavering = references_over(references, crop(networks, 100), [0.5 + 0.03 * (-1) ** i for i in range(20)])
    assert len({(four[0], frozenset(four)) for four in wavering}) == 1, "nor does the first"
    opened = references_over(references, crop(networks, 100), [0.95])
    wanted = networks.encode(np.stack([crop(networks, 100 + i) for i in (17, 18, 19, 20)]))
    assert set(opened[0]) == {latent.tobytes() for latent in wanted}, "and change where the mouth has gone elsewhere"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_frames_in_a_batch_refer_to_what_they_refer_to_one_by_one(networks: Networks, openings: list[float]) -> None:
    picture = crop(networks, 100)
    alone = known(networks, [i / 9 for i in range(10)])
    singly = references_over(alone, picture, openings)
    together = known(networks, [i / 9 for i in range(10)]).like(
        np.repeat(picture[None], len(openings), 0), np.stack([lips(o) for o in openings])
    )
    assert singly == [tuple(np.asarray(latent).tobytes() for latent in four) for four in together]


def test_of_equal_mouths_the_nearest_head_pose_is_taken(networks: Networks) -> None:
    references = References(networks)
    for level in (20, 60, 100, 140, 180, 220):
        references.add(crop(networks, 10, level), lips(0.5))
    references.encode(list(range(6)))
    given = references.like(crop(networks, 10, 125)[None], lips(0.5)[None])
    near = {latent.tobytes() for latent in networks.encode(np.stack([crop(networks, 10, level) for level in (60, 100, 140, 180)]))}
    assert {latent.tobytes() for latent in given[0]} == near


def test_the_edited_frame_itself_is_not_referred_to_for_its_pose_alone(networks: Networks) -> None:
    """Its lips are those that shall go."""
    references = seen(networks, [(0.25, 100), (0.4, 103), (1.0, 112), (1.0, 92)])
    nearest = references.like(crop(networks, 25, 100)[None], lips(0.5)[None])[0][0]
    assert np.array_equal(nearest, networks.encode(crop(networks, 40, 103)[None])[0])


def test_of_a_head_that_turns_the_view_counts_more_than_the_lips(networks: Networks) -> None:
    """A mouth as wanted, seen from another side, would be smeared over the face."""
    references = seen(networks, [(0.5, 130), (0.3, 106), (0.9, 70), (0.9, 134)])
    nearest = references.like(crop(networks, 25, 100)[None], lips(0.5)[None])[0][0]
    assert np.array_equal(nearest, networks.encode(crop(networks, 30, 106)[None])[0])


def test_a_live_frame_waits_for_one_more_crop_at_most(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    references = known(networks, [i / 20 for i in range(20)])
    references.encode([0, 7, 13, 19])
    encoded: list[int] = []
    encode = networks.chain.encode
    monkeypatch.setattr(networks.chain, "encode", lambda crops: (encoded.append(len(crops)), encode(crops))[1])
    for i in range(20):
        references.like(crop(networks, 100)[None], lips(i / 20)[None])
    assert max(encoded) == 1 and sum(encoded) <= 16, "each is encoded once, one at a time"


def test_of_a_face_that_is_looked_at_for_long_every_look_is_known_by_its_newest_picture(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "MOST", 4)
    references = seen(networks, [(0.0, 100), (0.4, 100), (0.8, 100), (1.0, 100)])
    references.look(crop(networks, 7), lips(0.05))
    assert references.lips[:, 0] == pytest.approx([0.05, 0.4, 0.8, 1.0]), "what is seen again takes its own place"
    four = references.like(crop(networks, 100)[None], lips(0.0)[None])[0]
    assert np.array_equal(four[0], networks.encode(crop(networks, 7)[None])[0]), "with its new picture"
    references.look(crop(networks, 9), lips(3.0))
    assert references.lips[:, 0] == pytest.approx([0.05, 3.0, 0.8, 1.0]), "what is new, the place of what was not seen for longest"
    for _ in range(50):
        references.look(crop(networks, 7), lips(0.05))
    assert references.lips[:, 0] == pytest.approx([0.05, 3.0, 0.8, 1.0]), "and who is silent for long still has the open mouths"


def test_a_live_face_is_looked_at_as_long_as_it_is_seen_and_its_mouth_is_known_soon_and_better_later(networks: Networks) -> None:
    known = GrowingIdentity(networks)
    mouths = [known.see(crop(networks, i % 250), i * LOOK_EVERY_NS // 5).lips for i in range(5 * 150)]
    changes = [i for i in range(1, len(mouths)) if mouths[i] is not mouths[i - 1]]
    assert changes == [5 * (2**n - 1) for n in range(1, 8)]
    assert known.identity is not None and len(known.identity.references.lips) == 150


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_face_that_was_hardly_seen_repeats_what_is_known(networks: Networks, count: int) -> None:
    references = known(networks, [i / 4 for i in range(count)])
    references.encode(list(range(count)))
    given = [np.asarray(latent).tobytes() for latent in references.like(crop(networks, 100)[None], lips(0.0)[None])[0]]
    assert len(set(given)) == count
    assert given[0] == given[{1: 3, 2: 1, 3: 1}[count]], "the nearest more often"


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(-3, 3))
def test_likeness_orders_all_and_the_very_same_comes_first(openings: list[float], wanted: float) -> None:
    all_lips = np.stack([lips(value) for value in [*openings, wanted]])
    poses = np.zeros((len(all_lips), 200), np.float32)
    order = by_likeness(all_lips, poses, lips(wanted), poses[0])
    assert sorted(order) == list(range(len(all_lips)))
    assert np.allclose(all_lips[order[0]], lips(wanted), atol=1e-6)


@given(st.integers(1, 20_000))
def test_who_was_seen_longer_is_known_from_more_pictures(count: int) -> None:
    chosen = sampled(range(count))
    assert chosen[0] == 0 and chosen[-1] == count - 1, "from the first to the last"
    assert len(chosen) == min(count, max(64, min(count // 4, 256)))
    assert np.ptp(np.diff(chosen)) <= 1 if len(chosen) > 1 else count == 1, "equally far apart"
