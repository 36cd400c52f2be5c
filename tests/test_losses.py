"""The loss of eq. 9, term by term against values worked out by hand, and the networks of its feature terms."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.models.resnet50 import ResNet50  # noqa: E402
from flashlips_edge.models.vgg import Vgg19  # noqa: E402
from flashlips_edge.training.boxes import LIPS, MASK, MOUTH, lower_row  # noqa: E402
from flashlips_edge.training.feature_files import feature_networks  # noqa: E402
from flashlips_edge.training.losses import LEAST_LIPS, FeatureLoss, LossWeights, ReconstructionLoss, emphasis, masked_mean  # noqa: E402
from flashlips_edge.training.pairs import Batch  # noqa: E402

SIZE, LOWER = 160, 56


class Whole(nn.Module):
    """Two layers of features: the picture, and three times it."""

    def maps(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, 3 * image]


class Picture(nn.Module):
    """A decoder that gives one picture whatever the latent, with a gradient to it."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return self.image + 0 * latent.sum()


def batch(lips: torch.Tensor | None = None) -> Batch:
    """Black pictures, latents of nought; the lips are the box, or what is given."""
    mask = torch.zeros(1, SIZE - LOWER, SIZE, dtype=torch.bool)
    top, bottom, left, right = LIPS.pixels(SIZE)
    mask[:, top - LOWER : bottom - LOWER, left:right] = True
    black = torch.zeros(1, SIZE - LOWER, SIZE, 3, dtype=torch.uint8)
    latent = torch.zeros(1, 16, 20, 20, dtype=torch.float16)
    face = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    parameters, hidden = torch.zeros(1, 6), torch.zeros(1)
    return Batch(latent, latent, latent, black, face, black, mask if lips is None else lips, parameters, hidden, black, face)


def terms(weights: LossWeights, edited: torch.Tensor, image: torch.Tensor, seen: Batch) -> dict[str, float]:
    loss = ReconstructionLoss(weights, Picture(image), Whole(), Whole())
    return {name: term.item() for name, term in loss(edited, seen).items()}


def test_every_term_by_hand() -> None:
    edited = torch.zeros(1, 16, 20, 20)
    edited[0, 0, 15, 10] = 2.0  # one latent wrong, within the mask
    edited[0, 0, 0, 0] = 1.0  # and one outside it
    image = torch.zeros(1, 3, SIZE - LOWER, SIZE)
    image[0, :, 60, 80] = 0.3  # one pixel among the lips: row 116 of the crop
    image[0, :, 5, 5] = 0.6  # and one beside the mask: row 61
    given = terms(LossWeights(**load_preset("paper")["loss"]), edited, image, batch())
    mask_latents, mask_pixels, lips_pixels = 10 * 12 * 16, 76 * 100, 60 * 70
    pictures = 3 * (SIZE - LOWER) * SIZE
    difference = 3 * (0.3 + 0.6) / pictures
    assert given == pytest.approx(
        {
            "latent": 0.1 * 3.0 / (16 * 400),
            "latent_mask": 0.1 * 2.0 / mask_latents,
            "pixel_mask": 10 * 0.3 / mask_pixels,
            "lips": 100 * 0.3 / lips_pixels,
            "perceptual": 50 * (difference + 3 * difference) / 2,
            "face": 5 * (difference + 3 * difference) / 2,
        },
        rel=1e-5,
    )


def test_our_own_terms_by_hand() -> None:
    image = torch.zeros(1, 3, SIZE - LOWER, SIZE)
    image[0, :, 60, 80] = 0.3
    given = terms(LossWeights(pixel=2.0, edge=1.0), torch.zeros(1, 16, 20, 20), image, batch())
    steps = 2 * 0.3 / (59 * 70) + 2 * 0.3 / (60 * 69)  # up to the pixel and down again, in each of the three colours alike
    assert given == pytest.approx({"pixel": 2 * 0.3 / ((SIZE - LOWER) * SIZE), "edge": steps}, rel=1e-5)


def test_pixels_count_more_where_the_other_mouth_differs() -> None:
    truth, other = torch.zeros(2, 1, 3, 20, 20).unbind(0)
    other[0, :, 5:16, 5:16] = 0.5
    weight = emphasis(truth, other, 6.0)
    assert weight[0, 0, 10, 10].item() == pytest.approx(0.4 + 6 * 0.5)
    assert weight[0, 0, 0, 0].item() == pytest.approx(0.4)
    assert emphasis(truth, other, 0.0).eq(1).all(), "the paper has no such weight"


def test_lips_that_are_hardly_there_do_not_count() -> None:
    error, mask = torch.full((3, 1, 10, 10), 0.5), torch.zeros(3, 1, 10, 10)
    mask[0, 0, :5] = 1.0
    error[0, 0, 0, 0] = 1.5  # mean of its lips: (49 * 0.5 + 1.5) / 50
    mask[1, 0, 0, 0] = 1.0  # a hundredth of the picture
    assert masked_mean(error, mask, 0.02).item() == pytest.approx((49 * 0.5 + 1.5) / 50)
    assert masked_mean(error, mask, 0.01).item() == pytest.approx(((49 * 0.5 + 1.5) / 50 + 0.5) / 2)
    assert masked_mean(error, mask, 0.6).item() == 0.0, "none is valid"
    hidden = torch.zeros(1, SIZE - LOWER, SIZE, dtype=torch.bool)
    hidden[0, :8, :10] = True
    assert 80 / hidden.numel() < LEAST_LIPS
    image = torch.ones(1, 3, SIZE - LOWER, SIZE)
    assert terms(LossWeights(lips=100.0), torch.zeros(1, 16, 20, 20), image, batch(hidden)) == {"lips": 0.0}


def test_the_feature_terms_teach_the_picture_and_not_the_network() -> None:
    network = nn.Conv2d(3, 4, 3)
    network.maps = lambda image: [network(image)]  # type: ignore[assignment]
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    FeatureLoss(network)(image, torch.rand(1, 3, 8, 8)).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert network.weight.grad is None


@pytest.mark.parametrize("name", ["paper", "edge", "nano"])
def test_each_preset_names_its_weights(name: str) -> None:
    weights = LossWeights(**load_preset(name)["loss"])
    assert weights.latent > 0 and weights.lips > 0
    if name == "paper":
        assert (weights.pixel, weights.edge, weights.moving) == (0, 0, 0), "nothing that is not in eq. 9"


def test_boxes_at_every_size() -> None:
    assert MASK.pixels(160) == (84, 160, 30, 130)
    assert MASK.pixels(512) == (269, 512, 96, 416)
    assert [lower_row(load_preset(name)) for name in ("nano", "edge", "paper")] == [56, 88, 184]
    crop = torch.arange(160.0)[:, None].expand(160, 160)
    assert torch.equal(MOUTH.cut(crop), MOUTH.cut(crop[56:])), "whether above is cut off or not"


def test_feature_files_of_the_user(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vgg, face = Vgg19(), ResNet50()
    save_file({**vgg.state_dict(), "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg19.safetensors")
    save_file(face.state_dict(), tmp_path / "vggface2.safetensors")
    perceptual, faces = feature_networks(tmp_path / "vgg19.safetensors", tmp_path / "vggface2.safetensors")
    image = torch.rand(1, 3, 64, 64)
    for network, original, channels in ((perceptual, vgg, [64, 128, 256, 512, 512]), (faces, face, [256, 512, 1024, 2048])):
        maps = network.eval().maps(image)
        assert [m.shape[1] for m in maps] == channels
        assert all(torch.equal(a, b) for a, b in zip(maps, original.eval().maps(image)))


def test_a_wrong_feature_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--vgg19 .*nowhere: no such safetensors file"):
        feature_networks(tmp_path / "nowhere", tmp_path / "nowhere")
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"--vgg19 .*features\.0\.bias is missing; the weights of Vgg19"):
        feature_networks(tmp_path / "part.safetensors", tmp_path / "part.safetensors")
    other = {**Vgg19().state_dict(), "features.2.weight": torch.zeros(128, 64, 3, 3)}  # torchvision numbers VGG-16 alike
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"--vgg19 .*features\.2\.weight is \[128, 64, 3, 3\] and must be \[64, 64, 3, 3\]"):
        feature_networks(tmp_path / "other.safetensors", None)
