"""The critic of mouths: it sees softness, the editor learns from it, and neither moves the other's weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from torch.nn import functional as F  # noqa: E402

from flashlips_edge.training.critic import ALIKE_WEIGHT, FOOL_WEIGHT, Critic, critique  # noqa: E402


def sharp_and_soft(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower pictures [B, 3, 104, 160] of stripes, and the same blurred."""
    phase = 6.3 * torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    stripes = (torch.sin(torch.arange(160) * 0.9 + phase) > 0).float().expand(count, 3, 104, 160) * 0.2 + 0.5
    return stripes, F.avg_pool2d(stripes, 5, stride=1, padding=2, count_include_pad=False)


def trained() -> Critic:
    torch.manual_seed(0)
    critic = Critic()
    optimiser = torch.optim.Adam(critic.parameters(), lr=2e-3)
    for step in range(30):
        sharp, soft = sharp_and_soft(4, step)
        optimiser.zero_grad()
        critique(critic, soft, sharp)["critic"].backward()
        optimiser.step()
    return critic


def test_what_is_told_from_it_makes_a_soft_picture_sharper() -> None:
    critic = trained()
    sharp, soft = sharp_and_soft(4, 1000)
    assert critic(sharp)[-1].mean() > critic(soft)[-1].mean() + 0.5
    mix = torch.zeros(4, 1, 1, 1, requires_grad=True)  # of the sharp picture in the soft one
    terms = critique(critic, soft + mix * (sharp - soft), sharp)
    for name in ("fool", "alike"):
        (slope,) = torch.autograd.grad(terms[name], mix, retain_graph=True)
        assert (slope < 0).all(), f"{name} asks for more of the sharp one"


def test_each_term_moves_its_own_side_alone() -> None:
    critic = Critic()
    sharp, soft = sharp_and_soft(2, 0)
    soft.requires_grad_()
    terms = critique(critic, soft, sharp)
    (terms["fool"] + terms["alike"]).backward(retain_graph=True)
    assert soft.grad is not None and soft.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())
    soft.grad = None
    terms["critic"].backward()
    assert soft.grad is None
    assert all(p.grad is not None for p in critic.parameters())


def test_the_terms_are_what_they_say() -> None:
    critic = Critic()
    with torch.no_grad():
        critic.verdict.weight.zero_()
        critic.verdict.bias.fill_(0.25)
    sharp, soft = sharp_and_soft(2, 0)
    same, other = critique(critic, sharp, sharp), critique(critic, soft, sharp)
    assert same["fool"].item() == pytest.approx(FOOL_WEIGHT * 0.75**2) and same["critic"].item() == pytest.approx(0.75**2 + 0.25**2)
    assert same["alike"].item() == 0 < other["alike"].item() < 2 * ALIKE_WEIGHT
    lower = sharp.clone()
    lower[..., :20] = 0  # beside the lower face that is changed
    assert critique(critic, lower, sharp)["alike"].item() == pytest.approx(0, abs=1e-6)
