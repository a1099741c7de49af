"""What each version of TensorRT can do: the one place that knows.

====================================================  ==================================
``get_binding_index``, ``execute_async_v2``,          up to 8.6
``max_workspace_size``
``set_memory_pool_limit``                             from 8.4
tensor names, ``execute_async_v3``                    from 8.5
engine inspector, detailed profiling verbosity        from 8.2
``IProgressMonitor``, ``STRONGLY_TYPED``              from 10.0
INT8 and FP16 flags, calibrators, ``set_precision``   up to 10
``EXPLICIT_BATCH``                                    required up to 8, ignored by 10, gone in 11
====================================================  ==================================

Read from NVIDIA's release branches. TensorRT-RTX has the interface of TensorRT 11 and
versions of its own; its timing cache does nothing.
"""

import importlib
import re
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence, Tuple

from edgecount.errors import ConfigError, EngineError

Capability = Tuple[int, int]
PRODUCTS = ("tensorrt", "tensorrt_rtx")
OLDEST = (8, 2)
_LABELS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
# Newest ONNX opset that the parser of a version reads, by its operators.md; from 10 on newer
# than any exporter's default.
_OPSETS = (((8, 5), 13), ((9, 0), 17), ((10, 0), 19))
# Known to miss kernels for these GPUs of boards, or not to run on boards at all.
_NO_SM87 = ((10, 13), (10, 14))
_NO_JETSON = ((11, 0), (11, 4, 1))
_NO_DLA = ((10, 8), (11, 4, 1))
_RTX_GPUS = ((7, 5), (8, 0), (8, 6), (8, 9))
_RTX_NEWEST = 12
_HINT = (
    "on a Jetson: apt install python3-libnvinfer, and make the environment with  python3 -m venv "
    "--system-site-packages; on a PC with a GeForce or RTX card: pip install tensorrt-rtx-cu13"
)


@dataclass(frozen=True)
class Version:
    """A product and its version.

    Attributes:
        product: ``tensorrt`` or ``tensorrt_rtx``, as the Python module is called.
        numbers: At least major and minor.
    """

    product: str
    numbers: Tuple[int, ...]

    @staticmethod
    def parse(product: str, text: str) -> "Version":
        """Read ``__version__``, e.g. ``8.5.2.2`` or ``10.0.0b6``.

        Raises:
            EngineError: It does not begin with two numbers.
        """
        found = re.match(r"\d+(\.\d+)+", text)
        if found is None:
            raise EngineError(f"{_LABELS[product]} gives its version as {text!r}")
        return Version(product, tuple(int(n) for n in found.group(0).split(".")))

    @property
    def text(self) -> str:
        """The numbers with dots."""
        return ".".join(str(n) for n in self.numbers)

    @property
    def has_dla(self) -> bool:
        """Whether layers can run on a DLA: up to 10.7, and again from 11.4.1 on."""
        return self.product == "tensorrt" and not _NO_DLA[0] <= self.numbers < _NO_DLA[1]

    @property
    def label(self) -> str:
        """For messages, e.g. ``TensorRT 8.5.2``."""
        return f"{_LABELS[self.product]} {'.'.join(str(n) for n in self.numbers[:3])}"


@dataclass(frozen=True)
class Features:
    """What the interface of a version has.

    Attributes:
        weakly_typed: Builder flags FP16 and INT8, layer precisions, calibrators.
        strongly_typed: Networks whose precisions are those of the file.
        explicit_batch: The flag EXPLICIT_BATCH must be given.
        memory_pools: ``set_memory_pool_limit``; else ``max_workspace_size``.
        progress_monitor: ``IProgressMonitor``.
        tensor_names: ``num_io_tensors``, ``set_tensor_address``, ``execute_async_v3``.
        bindings: ``num_bindings``, ``get_binding_index``, ``execute_async_v2``.
        timing_cache: A timing cache that is worth keeping.
        plugins: Plugins may stand in the network.
    """

    weakly_typed: bool
    strongly_typed: bool
    explicit_batch: bool
    memory_pools: bool
    progress_monitor: bool
    tensor_names: bool
    bindings: bool
    timing_cache: bool
    plugins: bool


@dataclass(frozen=True)
class TensorRt:
    """An imported TensorRT.

    Attributes:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: Which it is.
        features: What it can do.
    """

    module: Any
    version: Version
    features: Features


def features_of(version: Version) -> Features:
    """The features of a version.

    Raises:
        EngineError: It is older than any that edgecount can use.
    """
    if version.product == "tensorrt_rtx":
        return Features(
            weakly_typed=False,
            strongly_typed=True,
            explicit_batch=False,
            memory_pools=True,
            progress_monitor=True,
            tensor_names=True,
            bindings=False,
            timing_cache=False,
            plugins=False,
        )
    numbers = version.numbers
    if numbers < OLDEST:
        raise EngineError(f"{version.label} is too old: edgecount needs 8.2 (JetPack 4.6) or newer")
    return Features(
        weakly_typed=numbers < (11,),
        strongly_typed=numbers >= (10,),
        explicit_batch=numbers < (10,),
        memory_pools=numbers >= (8, 4),
        progress_monitor=numbers >= (10,),
        tensor_names=numbers >= (8, 5),
        bindings=numbers < (10,),
        timing_cache=True,
        plugins=True,
    )


def find(
    asked: Optional[str] = None, load: Callable[[str], Any] = importlib.import_module
) -> TensorRt:
    """Import the TensorRT of this machine: ``tensorrt`` before ``tensorrt_rtx``.

    Args:
        asked: One of :data:`PRODUCTS`, or None for whichever is there.
        load: Imports a module by name.

    Raises:
        ConfigError: There is no product of that name.
        EngineError: None is there, or it cannot be loaded, or it is too old.
    """
    if asked is not None and asked not in PRODUCTS:
        raise ConfigError(f"runtime {asked!r} is not known: choose one of {', '.join(PRODUCTS)}")
    tried: Sequence[str] = (asked,) if asked else PRODUCTS
    reasons: List[str] = []
    for product in tried:
        try:
            module = load(product)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            # A module without its library, or a library without the driver.
            reasons.append(f"{_LABELS[product]} is installed but does not load: {error}")
            continue
        version = Version.parse(product, str(module.__version__))
        return TensorRt(module, version, features_of(version))
    names = " or ".join(_LABELS[p] for p in tried)
    raise EngineError("; ".join(reasons) or f"this Python has no {names}: {_HINT}")


def newest_opset(version: Version) -> Optional[int]:
    """The newest ONNX opset that a version reads, None where that is no limit in practice."""
    if version.product == "tensorrt_rtx":
        return None
    return next((opset for before, opset in _OPSETS if version.numbers < before), None)


def has_int8(capability: Capability) -> bool:
    """Whether a GPU computes INT8 faster than FP16.

    DP4A came with 6.1; 6.0 and 6.2 (TX2) do not have it, nor does 5.3 (Nano).
    """
    return capability == (6, 1) or capability >= (7, 0)


def refusal(version: Version, capability: Optional[Capability], jetson: bool) -> Optional[str]:
    """Why engines of this version do not run on a GPU, or None where they should.

    Args:
        version: Of TensorRT.
        capability: The GPU's; None where there is no GPU.
        jetson: Whether the GPU is that of a Jetson.
    """
    if capability is None:
        return None
    major, minor = capability
    shown = f"{version.label} has no kernels for this GPU (SM {major}.{minor})"
    if version.product == "tensorrt_rtx":
        if capability in _RTX_GPUS or major == _RTX_NEWEST:
            return None
        return f"{shown}: it runs on SM 7.5, 8.0, 8.6, 8.9 and 12.x; use TensorRT here"
    if capability == (8, 7) and _NO_SM87[0] <= version.numbers < _NO_SM87[1]:
        return f"{shown}: on JetPack 7.2 use TensorRT 10.16"
    if jetson and _NO_JETSON[0] <= version.numbers < _NO_JETSON[1]:
        return f"{version.label} does not support Jetson boards: use 11.4.1 or newer"
    return None
