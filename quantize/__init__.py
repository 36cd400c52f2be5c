"""INT8 and FP8 graphs of a bundle: calibration, sensitivity layer by layer, the assignment within a budget, Q/DQ in standard ONNX."""

import flashlips_edge  # noqa: F401  it says what is not installed
