"""FlashLips Edge: real-time lip-sync on devices."""

import os

# ONNX Runtime from 1.29 on tells its maker what it runs unless this stands in the environment when it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
