"""Which Python binding of the CUDA driver is there."""

import contextlib
import ctypes
import importlib
from typing import Any

from edgecount.errors import EngineError
from edgecount.infer.cuda._libcuda import LibCuda

_LIBRARY = "libcuda.so.1"
# Newest first: cuda-python ≥ 12.5, and before it.
_MODULES = ("cuda.bindings.driver", "cuda.cuda")


def load() -> Any:
    """The driver's functions, called as in cuda-python: ``cuX(inputs…) -> (result, outputs…)``.

    Raises:
        EngineError: This machine has no NVIDIA driver.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EngineError(
            f"no NVIDIA driver: {_LIBRARY} cannot be loaded ({error}); install the driver, or in "
            "a container run it with the NVIDIA runtime (--gpus all, or --runtime nvidia)"
        ) from error
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return LibCuda(library)
