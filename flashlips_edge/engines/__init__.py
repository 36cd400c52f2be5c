"""Inference engines, one adapter each. An engine runs one graph of a bundle: a dictionary of arrays in, one out."""
