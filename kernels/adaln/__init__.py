"""Gated residual, normalisation over the width (LayerNorm or RMSNorm) and modulation in one pass; forward and backward."""
