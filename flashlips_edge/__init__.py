"""FlashLips Edge: real-time lip-sync on devices."""

import os
import sys
import warnings

from flashlips_edge import uncaught

uncaught.tell()

# ONNX Runtime from 1.29 on tells its maker what it runs unless this stands in the environment when it is loaded
if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    warnings.warn("onnxruntime was imported first, with its telemetry on: import it later, or set ORT_DISABLE_TELEMETRY=1", stacklevel=2)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
