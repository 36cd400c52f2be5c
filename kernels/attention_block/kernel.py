"""The host side of attention_block: what it asks of its tensors, its four launches, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from kernels.attention_block import reference
from kernels.attention_block.attend import attend_kernel
from kernels.attention_block.configurations import attend_blocks, project_blocks
from kernels.attention_block.project import normalise_kernel, project_kernel
from kernels.checks import check_float, check_like

HEAD_SIZES = (16, 128)  # smallest and largest


def attention_block(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    heads: int,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    groups: int = 1,
    eps: float = 1e-5,
    lengths: Tensor | None = None,
) -> Tensor:
    """Self-attention of tokens x [B, L, C] or of the positions of a map x [B, C, h, w]; the same shape comes back.

    qkv_weight [3 * C, C], qkv_bias [3 * C], project_weight [C, C], project_bias [C]; heads of C / heads, 16 to 128. With norm_weight
    and norm_bias [C] the result is x + attention(group_norm(x)), without them it is attention(x). Keys at and past ``lengths`` int32
    [B], at least 1 each, are not seen. x is float32, float16 or bfloat16 with any strides; the weights are rounded to its type.
    Gradients come by recomputation. Raises ValueError naming what does not fit.
    """
    check_float("attention_block", "x", x)
    if x.ndim not in (3, 4):
        raise ValueError(f"attention_block: x has {x.ndim} dimensions, wanted [B, L, C] or [B, C, h, w]")
    width = x.shape[2] if x.ndim == 3 else x.shape[1]
    if width % heads or not HEAD_SIZES[0] <= width // heads <= HEAD_SIZES[1]:
        raise ValueError(f"attention_block: heads is {heads} at width {width}, wanted heads of {HEAD_SIZES[0]} to {HEAD_SIZES[1]}")
    if (norm_weight is None) != (norm_bias is None):
        missing = "norm_weight" if norm_weight is None else "norm_bias"
        raise ValueError(f"attention_block: {missing} is None, wanted norm_weight and norm_bias or neither")
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "qkv_weight": (qkv_weight, (3 * width, width)),
        "qkv_bias": (qkv_bias, (3 * width,)),
        "project_weight": (project_weight, (width, width)),
        "project_bias": (project_bias, (width,)),
    }
    if norm_weight is not None and norm_bias is not None:
        if width % groups:
            raise ValueError(f"attention_block: groups is {groups}, wanted a divisor of width {width}")
        shapes |= {"norm_weight": (norm_weight, (width,)), "norm_bias": (norm_bias, (width,))}
    for name, (tensor, shape) in shapes.items():
        check_like("attention_block", name, tensor, shape, x)
    if lengths is not None and (lengths.dtype != torch.int32 or lengths.shape != x.shape[:1] or lengths.device != x.device):
        found = f"{lengths.dtype} {tuple(lengths.shape)} on {lengths.device}"
        raise ValueError(f"attention_block: lengths is {found}, wanted torch.int32 ({x.shape[0]},) on {x.device}")
    weights: list[Tensor | None] = [tensor.to(x.dtype).contiguous() for tensor, _ in shapes.values()]
    if norm_weight is None:
        weights += [None, None]
    return _AttentionBlock.apply(x, *weights, heads, groups, eps, lengths)


class _AttentionBlock(torch.autograd.Function):
    """The kernels forward; backward through the reference, recomputed from x, so that a forward pass keeps nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        *weights, heads, groups, eps, lengths = rest
        ctx.save_for_backward(x, *weights, lengths)
        ctx.sizes = heads, groups, eps
        return _forward(x, *rest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        *inputs, lengths = ctx.saved_tensors
        heads, groups, eps = ctx.sizes
        needed = ctx.needs_input_grad
        leaves = [None if tensor is None else tensor.detach().requires_grad_(need) for tensor, need in zip(inputs, needed)]
        x, qkv_weight, qkv_bias, project_weight, project_bias, norm_weight, norm_bias = leaves
        with torch.enable_grad():
            out = reference.attention_block(
                x, qkv_weight, qkv_bias, project_weight, project_bias, heads, norm_weight, norm_bias, groups, eps, lengths
            )
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, gradient))
        gradients = [next(found) if leaf is not None and leaf.requires_grad else None for leaf in leaves]
        return (*gradients, None, None, None, None)


def _forward(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    heads: int,
    groups: int,
    eps: float,
    lengths: Tensor | None,
) -> Tensor:
    dense = torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    out = torch.empty_like(x, memory_format=dense)
    tokens, out_tokens = (each if x.ndim == 3 else each.flatten(2).transpose(1, 2) for each in (x, out))  # [B, L, C]
    b, length, width = tokens.shape
    multiply = add = None
    if norm_weight is not None and norm_bias is not None:
        multiply, add = (torch.empty(b, width, device=x.device, dtype=torch.float32) for _ in range(2))
        group = width // groups
        channels = triton.next_power_of_2(group)
        normalise_kernel[(b, groups)](
            tokens, norm_weight, norm_bias, multiply, add, length, width, group, eps, *tokens.stride(),
            CHANNELS=channels, POSITIONS=max(16, 4096 // channels),
        )  # fmt: skip
    qkv = torch.empty(b, length, 3 * width, device=x.device, dtype=x.dtype)
    _project(tokens, qkv_weight, qkv_bias, qkv, multiply, add)
    mixed = torch.empty(b, length, width, device=x.device, dtype=x.dtype)
    size = width // heads
    blocks = attend_blocks(size, x.element_size())
    attend_kernel[(triton.cdiv(length, blocks.rows), heads, b)](
        qkv, lengths, mixed, length, width, size**-0.5, SIZE=size, PADDED=triton.next_power_of_2(size), RAGGED=lengths is not None,
        BLOCK_L=blocks.rows, BLOCK_KEYS=blocks.columns, num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    _project(mixed, project_weight, project_bias, out_tokens, residual=tokens if norm_weight is not None else None)
    return out


def _project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    multiply: Tensor | None = None,
    add: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    b, length, width = x.shape
    blocks = project_blocks(length, weight.shape[0], x.element_size())
    project_kernel[(triton.cdiv(weight.shape[0], blocks.columns), triton.cdiv(length, blocks.rows), b)](
        x, weight, bias, multiply, add, residual, out, length, weight.shape[0], width,
        *x.stride(), *out.stride(), *(x if residual is None else residual).stride(),
        NORM=multiply is not None, RESIDUAL=residual is not None, BLOCK_L=blocks.rows, BLOCK_N=blocks.columns, BLOCK_K=blocks.inner,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
