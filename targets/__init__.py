"""One table per device, <name>.yaml; what reads the tables, and `python -m targets.build`, which makes a device's bundle and engine."""
