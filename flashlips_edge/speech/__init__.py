"""What the networks hear: log-mel features, and where the sound is silent by its content."""
