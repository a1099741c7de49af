"""What building needs beyond the runtime."""

import importlib.util

from edgecount.errors import MissingExtraError


def require_onnx() -> None:
    """Raise MissingExtraError where the package ``onnx`` is not installed."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("onnx", "tensorrt")
