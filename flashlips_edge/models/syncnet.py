"""SyncNet: whether sound and lips belong together, and by how much they are apart (Chung and Zisserman, Out of time, 2016).

Two towers map five frames of a mouth (0.2 s) and the same 0.2 s of log-mel to vectors that are alike where they belong together.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.models.features import fill

SHIPPED = Path(__file__).parents[2] / "weights" / "syncnet" / "syncnet.safetensors"

HEIGHT, WIDTH = 48, 96  # px of the mouth picture
BOX = (0.55, 0.95, 0.1, 0.9)  # top, bottom, left, right of it in crop units
STEP_NS = 40_000_000  # 25 steps a second
MELS, MELS_PER_STEP = 80, 4
SPAN = 5  # steps that one vector sees
AT_ONCE = 512  # pictures, so that a long clip does not fill the memory
REACH = 10  # offsets that are tried, in frames to either side


class Sync(NamedTuple):
    """What SyncNet finds in a clip.

    offset      frames of 40 ms by which the sound comes late, negative when early
    confidence  the similarity there above the median of all offsets: 0 when nothing fits
    curve       float32 [2 * reach + 1]: mean cosine at offsets -reach..reach
    certainty   how far the similarity there is above that of other moments, in standard errors: 3 and more is hardly chance
    """

    offset: int
    confidence: float
    curve: np.ndarray
    certainty: float


class Tower(nn.Module):
    """Features of each step, less what stays the same all clip long (who it is), then two convolutions over time:
    [B, C, T] -> unit vectors [B, T - 4, D]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 3)
        self.second = nn.Conv1d(width, width, 3)
        self.out = nn.Conv1d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.second(F.silu(self.first(F.instance_norm(x)))))
        return F.normalize(self.out(x).transpose(1, 2), dim=-1)


class SyncNet(nn.Module):
    """mouths [B, T, 48, 96] grey in [0, 1] and mel [B, 4 * T, 80] -> unit vectors video, sound [B, T - 4, 128]."""

    def __init__(self, width: int = 192, out: int = 128) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            nn.PixelUnshuffle(4),  # [16, 12, 24]
            nn.Conv2d(16, 48, 3, padding=1),
            nn.GroupNorm(8, 48),
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),  # [96, 6, 12]
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 96, 3, padding=1),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 128, 3, stride=2, padding=1),  # [128, 3, 6]
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128 * 3 * 6, width),
        )
        self.listen = nn.Sequential(
            nn.Conv1d(MELS, width, MELS_PER_STEP, MELS_PER_STEP),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )
        self.video = Tower(width, out)
        self.sound = Tower(width, out)

    def watch(self, mouths: Tensor) -> Tensor:
        """Video vectors [B, T - 4, D]; vector i sees the mouths i to i + 4."""
        batch, steps = mouths.shape[:2]
        pictures = mouths.reshape(batch * steps, 1, HEIGHT, WIDTH) * 2 - 1
        features = torch.cat([self.picture(part) for part in pictures.split(AT_ONCE)])
        return self.video(features.view(batch, steps, -1).transpose(1, 2))

    def hear(self, mel: Tensor) -> Tensor:
        """Sound vectors [B, T - 4, D]; vector i hears the 0.2 s that the mouths i to i + 4 fill."""
        return self.sound(self.listen(mel.transpose(1, 2)))

    def forward(self, mouths: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        return self.watch(mouths), self.hear(mel)


def load_syncnet(path: Path = SHIPPED) -> SyncNet:
    """The network with weights that ``training.syncnet`` wrote. Raises UserError where there are none, or another network's."""
    advice = "give the weights that python -m flashlips_edge.training.syncnet wrote"
    if not path.is_file():
        raise UserError(f"--syncnet {path}: there is no such file; {advice}")
    network = SyncNet()
    fill(network, path, f"--syncnet {path}", advice)
    return network.eval()


def mouths_of(crops: np.ndarray) -> np.ndarray:
    """Grey mouth pictures uint8 [T, 48, 96] of face crops uint8 RGB [T, S, S, 3]."""
    size = crops.shape[1]
    top, bottom, left, right = (round(edge * size) for edge in BOX)
    part = torch.from_numpy(np.ascontiguousarray(crops[:, top:bottom, left:right])).float()
    grey = (part * torch.tensor([0.299, 0.587, 0.114])).sum(-1)[:, None]  # [T, 1, h, w]
    return F.interpolate(grey, (HEIGHT, WIDTH), mode="bilinear", antialias=True)[:, 0].round().byte().numpy()


def frames_at_25_hz(pts_ns: np.ndarray) -> np.ndarray:
    """Which frame int [T] is nearest to each step of 40 ms, from time 0 to the last of ``pts_ns`` int64 [frames], which rise."""
    steps = np.arange(int(pts_ns[-1]) // STEP_NS + 1) * STEP_NS
    after = np.clip(np.searchsorted(pts_ns, steps), 1, max(1, len(pts_ns) - 1))
    before_is_nearer = steps - pts_ns[after - 1] <= pts_ns[np.minimum(after, len(pts_ns) - 1)] - steps
    return np.where(before_is_nearer, after - 1, np.minimum(after, len(pts_ns) - 1))


@torch.no_grad()
def sync_score(network: SyncNet, crops: np.ndarray, mel: np.ndarray, reach: int = REACH) -> Sync:
    """Where the sound fits the lips best: crops uint8 [T, S, S, 3] at 25 frames a second, mel float32 [4 * T', 80] of
    ``speech.features.log_mel``; both start at time 0.

    A ValueError where they share less than ``reach`` + 5 steps.
    """
    steps = min(len(crops), len(mel) // MELS_PER_STEP)
    if steps < reach + SPAN:
        raise ValueError(f"picture and sound share {steps} steps of 40 ms; {reach + SPAN} are the least that can be compared")
    device = next(network.parameters()).device
    mouths = torch.from_numpy(mouths_of(crops)).to(device).float() / 255
    video = network.watch(mouths[None])[0]
    sound = network.hear(torch.from_numpy(mel[: len(mel) // MELS_PER_STEP * MELS_PER_STEP]).to(device)[None])[0]
    alike = (video.float() @ sound.float().T).float().cpu().numpy()  # [T - 4, T' - 4]
    table = np.full((len(alike), 2 * reach + 1), np.nan, np.float32)  # similarity of each step at each offset
    for column, offset in enumerate(range(-reach, reach + 1)):
        diagonal = np.diagonal(alike, offset)
        start = max(0, -offset)
        table[start : start + len(diagonal), column] = diagonal
    curve = np.nanmean(table, 0)
    best = int(curve.argmax())
    elsewhere = np.abs(np.arange(2 * reach + 1) - best) >= SPAN
    rows = table[np.isfinite(table[:, best]) & np.isfinite(table[:, elsewhere]).any(1)]
    gain = rows[:, best] - np.nanmean(rows[:, elsewhere], 1)
    error = gain.std() / np.sqrt(len(gain) / SPAN) + 1e-6  # vectors less than a span apart share frames
    return Sync(best - reach, float(curve[best] - np.median(curve)), curve, float(gain.mean() / error))
