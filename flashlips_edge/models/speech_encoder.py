"""The speech encoder: log-mel to one vector per lips step. At preset paper its place is wav2vec 2.0's (FlashLips, section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TimeBlock(nn.Module):
    """Residual convolution over time: [B, C, T] -> the same."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)  # normalise each step alone: no step may depend on the clip's length
        x_normed = (x - mean) * ((x - mean).square().mean(1, keepdim=True) + 1e-5).rsqrt()
        x_normed = x_normed * self.norm.weight[:, None] + self.norm.bias[:, None]
        return x + self.second(F.silu(self.first(F.silu(x_normed))))


class SpeechEncoder(nn.Module):
    """audio [B, 4*T, mels] -> speech [B, T, D]; sees about 0.3 s to either side of a step."""

    def __init__(self, mels: int, width: int, blocks: int, kernel: int = 5) -> None:
        super().__init__()
        self.halve = nn.Conv1d(mels, width, 4, stride=2, padding=1)
        self.quarter = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(TimeBlock(width, kernel) for _ in range(blocks))

    def forward(self, audio: Tensor) -> Tensor:
        x = self.quarter(F.silu(self.halve(audio.transpose(1, 2))))  # [B, D, T]
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)
