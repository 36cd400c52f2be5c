"""Self-attention with everything around it: group norm, queries, keys and values, flash attention, projection and residual, in four
launches and without the L x L probabilities; for the editor's maps and for the transformers' tokens."""
