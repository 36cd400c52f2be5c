"""INT8 and FP8 graphs of a bundle: calibration, sensitivity layer by layer, the assignment within a budget, Q/DQ in standard ONNX."""
