"""VGG-19 as a feature network for the perceptual loss (Simonyan and Zisserman 2015), from a file of the user's."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS: tuple[int | str, ...] = (64, 64, "pool", 128, 128, "pool", *[256] * 4, "pool", *[512] * 4, "pool", *[512] * 4)
LAYERS = (1, 6, 11, 20, 29)  # relu1_1 to relu5_1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Vgg19(nn.Module):
    """``maps``: image [B, 3, H, W] in [0, 1] -> relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1; weights named as torchvision does."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in CHANNELS:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers[: LAYERS[-1] + 1])

    def maps(self, image: Tensor) -> list[Tensor]:
        x, found = (image - image.new_tensor(MEAN)[:, None, None]) / image.new_tensor(DEVIATION)[:, None, None], []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in LAYERS:
                found.append(x)
        return found
