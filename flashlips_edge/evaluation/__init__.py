"""What the result is worth: metrics over real clips, the report table, contact sheets.

Works from a bundle's ONNX graphs and from finished videos; the landmark network is read from a folder of models and never shipped."""
