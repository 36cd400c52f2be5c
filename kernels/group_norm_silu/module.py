"""The layer that runs the fused operation in place of the plain one."""

from __future__ import annotations

from torch import Tensor

from flashlips_edge.models import layers
from kernels.group_norm_silu.kernel import group_norm_silu


class FusedGroupNormSiLU(layers.GroupNormSiLU):
    """As the plain layer, in one launch or two."""

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return group_norm_silu(x, self.weight, self.bias, self.num_groups, self.eps, scale, shift)[1]


FUSED = {layers.GroupNormSiLU: FusedGroupNormSiLU}
