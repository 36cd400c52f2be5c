"""Which layers go to low precision: the cheapest assignment within a budget, greedy on damage over time saved.

The lips encoder's are chosen before (quantize/lips.py), and stay as they are here."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import inf

from flashlips_edge.errors import UserError
from quantize.answers import Quality, decibels
from quantize.layers import Layer
from quantize.sensitivity import Damage
from quantize.targets import LIPS_ENCODER, PICTURE_GRAPHS
from quantize.workbench import Workbench

CAUTION = 0.97  # of what is left of a budget that was overspent
ROUNDS = 8


@dataclass(frozen=True)
class Budget:
    """What a bundle may lose against fp32: PSNR of the mouth box, least cosine of a lips vector, correlation of the spoken opening;
    and what each graph of pictures or lips shall gain: the least share of its operations at low precision, the most bytes over fp32's.

    The least, not the mean: single frames fall. A dark picture is all near -1 where it enters the lips encoder, and E4M3, with three bits
    of fraction, has four values between -1 and -0.75."""

    mouth_db: float = 40.0
    lips: float = 0.999
    opening: float = 0.99
    share: float = 0.8
    size: float = 0.35

    def allowed(self) -> Damage:
        return Damage(255**2 / 10 ** (self.mouth_db / 10), 1 - self.lips, 1 - self.opening)

    def holds(self, quality: Quality) -> bool:
        return quality.mouth_db >= self.mouth_db and quality.lips >= self.lips and quality.opening >= self.opening

    def keeps(self, share: float, size: float) -> bool:
        return share >= self.share and size <= self.size


def cheapest(layers: dict[Layer, Damage], savings: dict[Layer, float], allowed: Damage) -> set[Layer]:
    """Layers in the order of damage over saving, as long as their damages, added up, stay within ``allowed``.

    A layer that does not fit is left out, and the next are tried: one bad layer does not keep the rest out."""

    def share(layer: Layer) -> float:
        damage = layers[layer]
        return damage.picture / allowed.picture + damage.lips / allowed.lips + damage.spoken / allowed.spoken

    spent, low = Damage(0, 0, 0), set[Layer]()
    for layer in sorted(layers, key=lambda each: (share(each) / savings[each], each.graph, each.name)):
        damage = layers[layer]
        total = Damage(spent.picture + damage.picture, spent.lips + damage.lips, spent.spoken + damage.spoken)
        if total.picture <= allowed.picture and total.lips <= allowed.lips and total.spoken <= allowed.spoken:
            spent, low = total, low | {layer}
    return low


def assign(bench: Workbench, damages: dict[Layer, Damage], budget: Budget, lips: Set[Layer]) -> tuple[set[Layer], Quality]:
    """The cheapest assignment whose measured quality is within the budget: all layers, if that holds; ``lips`` of the lips encoder.

    Damages do not quite add up: where layers together cost more than the sum, the sums are held to a smaller allowance.
    What is left of the budget then goes to single layers. UserError where no layer of a picture graph fits, with the best that can be
    reached."""
    damages = {layer: damage for layer, damage in damages.items() if layer.graph != LIPS_ENCODER}
    savings = {layer: bench.target.saving(layer.flops, layer.weights) for layer in damages}
    best = max(decibels(damage.picture) for layer, damage in damages.items() if layer.graph in PICTURE_GRAPHS)
    low, allowed = damages.keys() | lips, budget.allowed()
    for number in range(ROUNDS):
        if not any(layer.graph in PICTURE_GRAPHS for layer in low):
            break
        quality = bench.quality({name: bench.finished(name, low) for name in bench.rules})
        if budget.holds(quality):
            return _filled(bench, damages, savings, budget, low, quality)
        if number == 0:
            allowed = _binding(budget, quality)
        else:
            allowed = _less(allowed, Damage.of(quality), budget.allowed())
        low = cheapest(damages, savings, allowed) | lips

    rest = bench.quality({name: bench.finished(name, set()) for name in bench.rules}).mouth_db
    best = min(best, rest)
    raise UserError(f"--budget-db {budget.mouth_db:g} cannot be met in {bench.form}: the best there is, one layer alone, is {best:.1f} dB")


def _filled(
    bench: Workbench, damages: dict[Layer, Damage], savings: dict[Layer, float], budget: Budget, low: set[Layer], quality: Quality
) -> tuple[set[Layer], Quality]:
    """What the sums were too careful to allow: every layer that is still high, those that save most first, if the budget holds with it."""
    for layer in sorted(set(damages) - low, key=lambda each: (-savings[each], each.graph, each.name)):
        more = bench.quality({name: bench.finished(name, low | {layer}) for name in bench.rules})
        if budget.holds(more):
            low, quality = low | {layer}, more
    return low, quality


def _binding(budget: Budget, quality: Quality) -> Damage:
    """The allowance where all layers at once do not hold the budget; what holds even then need not be spared."""
    allowed = budget.allowed()
    return Damage(
        allowed.picture if quality.mouth_db < budget.mouth_db else inf,
        allowed.lips if quality.lips < budget.lips else inf,
        allowed.spoken if quality.opening < budget.opening else inf,
    )


def _less(allowed: Damage, real: Damage, wanted: Damage) -> Damage:
    """The allowance, smaller by as much as what came of it was too large."""

    def part(allowed: float, real: float, wanted: float) -> float:
        return allowed * min(1.0, CAUTION * wanted / max(real, 1e-12))

    return Damage(
        part(allowed.picture, real.picture, wanted.picture),
        part(allowed.lips, real.lips, wanted.lips),
        part(allowed.spoken, real.spoken, wanted.spoken),
    )


def reasons(bench: Workbench, damages: dict[Layer, Damage], low: set[Layer], budget: Budget, quality: Quality) -> dict[str, dict[str, str]]:
    """Why a layer stays high, by graph and layer."""
    result: dict[str, dict[str, str]] = {}
    allowed = budget.allowed()
    for layer in bench.layers:
        if layer not in low:
            damage = damages[layer]
            alone = f"alone {decibels(damage.picture):.1f} dB, lips {1 - damage.lips:.5f}, speech {1 - damage.spoken:.5f}"
            beyond = damage.picture > allowed.picture or damage.lips > allowed.lips or damage.spoken > allowed.spoken
            why = "beyond the budget by itself" if beyond else "costs more of the budget than it saves in time"
            if layer.graph == LIPS_ENCODER:
                nothing = "no cheaper choice" if quality.lips >= budget.lips else "no choice that keeps share and size"
                why = f"so all lips are {quality.lips:.5f} or more; {nothing} holds {budget.lips:g}"
            result.setdefault(layer.graph, {})[layer.name] = f"{alone}: {why}"
    return result


def missed(bench: Workbench, low: set[Layer], budget: Budget, quality: Quality) -> list[str]:
    """A sentence for each mark that the assignment does not reach; the mouth box and the speech are held in any case."""
    result = []
    if quality.lips < budget.lips:
        result.append(
            f"{LIPS_ENCODER}: least cosine {quality.lips:.5f}, wanted {budget.lips:g}; nothing that keeps share and size is nearer"
        )
    for name in sorted(bench.rules.keys() & {*PICTURE_GRAPHS, LIPS_ENCODER}):
        share, size = bench.share(name, low), bench.size(name, low)
        if not budget.keeps(share, size):
            wanted = f"wanted {budget.share:.0%} or more and {budget.size:g} or less"
            result.append(f"{name}: {share:.1%} of the operations low at {size:.3f} of fp32's size, {wanted}")
    return result
