"""In what numbers training computes: bfloat16 where the processor has it, else float32."""

from __future__ import annotations

import torch


def has_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 is worth it on "cuda" or "cpu": a CPU that has to imitate it is several times slower than in float32."""
    return device_type != "cpu" or (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device_type: str) -> torch.autocast:
    """A context that computes in bfloat16 where the device has it."""
    return torch.autocast(device_type, torch.bfloat16, enabled=has_bfloat16(device_type))
