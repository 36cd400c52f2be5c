"""How fast the kernels are beside torch, torch.compile and the hardware's limits; nothing is timed before it is right.
`python -m kernels.bench` on a GPU, `python -m kernels.bench --rehearse` anywhere."""
