"""One table per device, <name>.yaml; what reads the tables, and `python -m targets.build`, which makes a device's bundle and engine."""

import flashlips_edge  # noqa: F401  it says what is not installed
