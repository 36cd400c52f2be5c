"""Ahead of time, without a GPU: every kernel that a preset needs as cubin and PTX, with a manifest that the launcher
(flashlips_edge/engines/cubin.py) reads. `python -m kernels.aot --target orin --out FOLDER`."""
