"""What measures speed and quality, and its results; benchmarks/README.md says what they mean."""

import flashlips_edge  # noqa: F401  it says what is not installed
