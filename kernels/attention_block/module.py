"""Attention and AttentionBlock through attention_block."""

from __future__ import annotations

from torch import Tensor

from flashlips_edge.models.layers import Attention, AttentionBlock
from kernels.attention_block.kernel import attention_block


class FusedAttention(Attention):
    """Tokens [B, L, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return attention_block(x, self.qkv.weight, self.qkv.bias, self.project.weight, self.project.bias, self.heads)


class FusedAttentionBlock(AttentionBlock):
    """Maps [B, C, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        inner, norm = self.attention, self.norm
        weights = inner.qkv.weight, inner.qkv.bias, inner.project.weight, inner.project.bias
        return attention_block(x, *weights, inner.heads, norm.weight, norm.bias, norm.num_groups, norm.eps)


FUSED = {Attention: FusedAttention, AttentionBlock: FusedAttentionBlock}
