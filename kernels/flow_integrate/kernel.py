"""flow_integrate: a persistent kernel. Its phases are the layers' parts; programs wait for each other between phases, so that one launch
reads the weights once an evaluation and nothing else need leave the second-level cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.checks import check_float, check_like
from kernels.flow_integrate.parts import attend, gated_rows, linear, wait_for_all
from kernels.flow_integrate.turn import turn
from kernels.flow_integrate.weights import FlowWeights
from kernels.precision import INTERPRETED

SOLVERS = ("euler", "midpoint")
LONGEST = 128  # steps before and in a window: an attention's keys are one block
PROGRAMS = 128  # at most; a GPU with fewer processors gets as many as it has
PHASES = 7  # of a layer; the last layer's seventh is part of the turn to the next evaluation


@triton.jit
def flow_integrate_kernel(
    z, before, modulation, qkv_weight, qkv_bias, project_weight, project_bias, widen_weight, widen_bias, narrow_weight, narrow_bias,
    norm_weight, norm_bias, leave_weight, leave_bias, enter_weight, enter_bias, position,
    x, hidden, qkv, mixed, wide, branch, counter, first, last, B, P, T, guidance,
    LAYERS: tl.constexpr, WIDTH: tl.constexpr, MLP: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    EVALUATIONS: tl.constexpr, STEPS: tl.constexpr, MIDPOINT: tl.constexpr, TOGETHER: tl.constexpr, PHASES: tl.constexpr,
    BLOCK_W: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_Q: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The phases from first to last, of EVALUATIONS * LAYERS * PHASES + 1. z float32 [B, T, D] is the noise and becomes the lips.

    With R = 2 * B * (P + T) rows: modulation [E, R, LAYERS * 6 * WIDTH]; the rest of the first lines as in FlowWeights; x float32
    [R, WIDTH]; hidden, mixed, branch [R, WIDTH], qkv [R, 3 * WIDTH], wide [R, MLP]; counter int32, 0. TOGETHER: all programs run at
    once and wait for each other after each phase. Otherwise one phase is launched at a time.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    rows = 2 * B * (P + T)
    STRIDE: tl.constexpr = LAYERS * 6 * WIDTH
    for phase in range(first, last):
        evaluation, inner = phase // (LAYERS * PHASES), phase % (LAYERS * PHASES)
        if inner == 0:
            turn(
                z, x, branch, hidden, before, modulation, norm_weight, norm_bias, leave_weight, leave_bias, enter_weight, enter_bias,
                position, evaluation, program, programs, B, P, T, guidance, LAYERS, WIDTH, BLOCK_W, D, EVALUATIONS, STEPS, MIDPOINT, ROWS,
            )  # fmt: skip
        else:
            layer, part = (inner - 1) // PHASES, (inner - 1) % PHASES
            at = modulation + tl.cast(evaluation, tl.int64) * rows * STRIDE + layer * 6 * WIDTH
            if part == 1:
                attend(qkv, mixed, 2 * B, P + T, program, programs, WIDTH, HEADS, PADDED, KEYS, BLOCK_Q)
            elif part == 3 or part == 6:
                gate = at + tl.where(part == 3, 2, 5) * WIDTH
                gated_rows(x, branch, hidden, gate, gate + WIDTH, rows, program, programs, STRIDE, WIDTH, BLOCK_W, ROWS)
            else:  # one product in the code for all four, which would otherwise each keep registers
                source, weight, bias, target = hidden, qkv_weight, qkv_bias, qkv
                if part == 2:
                    source, weight, bias, target = mixed, project_weight, project_bias, branch
                elif part == 4:
                    source, weight, bias, target = hidden, widen_weight, widen_bias, wide
                elif part == 5:
                    source, weight, bias, target = wide, narrow_weight, narrow_bias, branch
                depth = tl.where(part == 5, MLP, WIDTH)
                features = tl.where(part == 0, 3 * WIDTH, tl.where(part == 4, MLP, WIDTH))
                weight, bias = weight + layer * features * depth, bias + layer * features
                linear(source, weight, bias, target, rows, depth, features, part == 4, program, programs, BLOCK_R, BLOCK_F, BLOCK_K)
        if TOGETHER:
            wait_for_all(counter, programs * (phase - first + 1))


def flow_integrate(
    noise: Tensor,
    before: Tensor,
    conditions: Tensor,
    weights: FlowWeights,
    heads: int,
    steps: int,
    guidance: float,
    solver: str = "euler",
    programs: int | None = None,
    together: bool = True,
) -> Tensor:
    """Lips [B, T, D] in relative units from noise [B, T, D]: audio to lips' whole integration.

    before [2B, P, W]: tokens of the steps before, of the guided half and of the unguided; conditions [E, 2B, P + T, W] after their SiLU,
    at the flow times of weights.times; P + T at most 128. Everything has noise's type, float32, float16 or bfloat16; residuals and lips
    are float32 inside. ``together`` makes it one launch, whose ``programs`` must all run at once; without it every phase is a launch, for
    a GPU that others use too, and for comparison. Raises ValueError naming what does not fit.
    """
    check_float("flow_integrate", "noise", noise)
    if solver not in SOLVERS:
        raise ValueError(f"flow_integrate: solver is {solver!r}, wanted one of {', '.join(SOLVERS)}")
    if noise.ndim != 3 or before.ndim != 3:
        raise ValueError(f"flow_integrate: noise and before have {noise.ndim} and {before.ndim} dimensions, wanted 3 and 3")
    (b, window, dimensions), (earlier, width) = noise.shape, before.shape[1:]
    length, rows, layers, mlp = earlier + window, 2 * b * (earlier + window), len(weights.qkv_weight), weights.widen_weight.shape[1]
    evaluations = steps * (2 if solver == "midpoint" else 1)
    if length > LONGEST:
        raise ValueError(f"flow_integrate: before and noise have {length} steps together, wanted at most {LONGEST}")
    if width % heads:
        raise ValueError(f"flow_integrate: heads is {heads}, wanted a divisor of width {width}")
    check_like("flow_integrate", "before", before, (2 * b, earlier, width), noise)
    check_like("flow_integrate", "conditions", conditions, (evaluations, 2 * b, length, width), noise)
    check_like("flow_integrate", "weights.position", weights.position, (length, width), noise)
    for name, tensor in {"before": before, "conditions": conditions, **weights._asdict()}.items():
        if tensor.dtype != noise.dtype:
            raise ValueError(f"flow_integrate: {name} is {tensor.dtype}, wanted noise's {noise.dtype}")
    modulation = F.linear(conditions, weights.modulation_weight, weights.modulation_bias)  # [E, 2B, L, layers * 6 * W]

    def scratch(*shape: int, dtype: torch.dtype = noise.dtype) -> Tensor:
        return torch.empty(*shape, device=noise.device, dtype=dtype)

    z = noise.to(torch.float32, copy=True).contiguous()
    x = scratch(rows, width, dtype=torch.float32)
    branch, hidden, mixed, qkv, wide = (scratch(rows, features) for features in (width, width, width, 3 * width, mlp))
    counter = torch.zeros(1, device=noise.device, dtype=torch.int32)
    phases = evaluations * layers * PHASES + 1
    if programs is None:
        programs = resident_programs(noise)
    for first, last in [(0, phases)] if together else [(phase, phase + 1) for phase in range(phases)]:
        flow_integrate_kernel[(programs,)](
            z, before.contiguous(), modulation, *(tensor.contiguous() for tensor in weights[2:]),
            x, hidden, qkv, mixed, wide, branch, counter, first, last, b, earlier, window, guidance,
            LAYERS=layers, WIDTH=width, MLP=mlp, HEADS=heads, D=dimensions, EVALUATIONS=evaluations, STEPS=steps,
            MIDPOINT=solver == "midpoint", TOGETHER=together, PHASES=PHASES,
            BLOCK_W=triton.next_power_of_2(width), PADDED=max(16, triton.next_power_of_2(width // heads)),
            KEYS=max(16, triton.next_power_of_2(length)), **choose_blocks(rows, width, programs, noise.element_size()),
            launch_cooperative_grid=together,
        )  # fmt: skip
    return z.to(noise.dtype)


def resident_programs(like: Tensor) -> int:
    """One on each processor of the GPU; the interpreter runs programs one after the other, so there a single one."""
    if INTERPRETED.value:
        return 1
    return min(PROGRAMS, torch.cuda.get_device_properties(like.device).multi_processor_count)


def choose_blocks(rows: int, width: int, programs: int, element_size: int) -> dict[str, int]:
    """Block sizes and warps: up to 128 rows, a window's, in one block of a product, so that one program reads each weight; and each
    program's rows of a norm in one block, as far as registers hold them."""
    share = min(triton.next_power_of_2(triton.cdiv(rows, programs)), max(1, 4096 // triton.next_power_of_2(width)))
    features = min(32, max(16, triton.next_power_of_2(triton.cdiv(width, programs))))
    inner = min(64 // element_size, max(16, width // 8))
    blocks = {"BLOCK_R": 128 if rows > 64 else 64, "BLOCK_F": features, "BLOCK_K": inner, "BLOCK_Q": 16, "ROWS": share}
    return {**blocks, "num_warps": 8, "num_stages": 6}
