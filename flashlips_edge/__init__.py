"""FlashLips Edge: real-time lip-sync on devices."""
