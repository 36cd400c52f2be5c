"""Which layers of the lips encoder stay high: so few that sets of them are tried, where other graphs' layers are summed.

Its mark is the least cosine of all frames. Each layer alone has another worst frame, and two layers' worst frames can add up or
cancel: what they cost together is only known by measuring it, and that takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from quantize.layers import Layer
from quantize.policy import Budget
from quantize.targets import LIPS_ENCODER
from quantize.workbench import Workbench

MOST_HIGH = 2  # layers that stay high, of ten


@dataclass(frozen=True)
class Choice:
    """``low``: layers of the lips encoder; ``rule`` of its ranges; ``lips``: the least cosine of all calibration frames."""

    low: frozenset[Layer]
    rule: str
    lips: float


def choose(bench: Workbench, budget: Budget) -> Choice:
    """Of the assignments that keep the budget's share and size the cheapest that holds its lips, or else the nearest to it."""
    tried: list[Choice] = []
    for low in _cheapest_first(bench, budget):
        tried.append(max((Choice(low, rule, bench.lips(low, rule)) for rule in bench.tries), key=lambda each: each.lips))
        if tried[-1].lips >= budget.lips:
            return tried[-1]
    return max(tried, key=lambda each: each.lips)


def _cheapest_first(bench: Workbench, budget: Budget) -> Iterator[frozenset[Layer]]:
    """All layers low, and what keeps share and size with some of them high: by the time lost."""
    mine = [layer for layer in bench.layers if layer.graph == LIPS_ENCODER]
    yield frozenset(mine)
    sets = [high for size in range(1, MOST_HIGH + 1) for high in combinations(mine, size)]
    for high in sorted(sets, key=lambda each: sum(bench.target.saving(layer.flops, layer.weights) for layer in each)):
        low = frozenset(mine).difference(high)
        if budget.keeps(bench.share(LIPS_ENCODER, low), bench.size(LIPS_ENCODER, low)):
            yield low
