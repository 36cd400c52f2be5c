"""The networks in PyTorch, one file each; presets/*.yaml give their sizes."""
