"""``--precision auto`` on a device: an INT8 engine is used only where it is faster than FP16."""

from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.toolchain.bench_engine import measure
from edgecount.toolchain.build.builder import Built, build
from edgecount.toolchain.build.job import Progress
from edgecount.toolchain.build.request import BuildRequest
from edgecount.toolchain.engines import engine_for

_SECONDS = 3.0

# The median time of one run of an engine's file, milliseconds. Raises EngineError.
Measure = Callable[[Path], float]


def build_fastest(
    request: BuildRequest,
    trt: TensorRt,
    device: DeviceFacts,
    cache: EngineCache,
    progress: Progress,
    *,
    force: bool = False,
    timed: Measure,
) -> Built:
    """Build what is asked for; where ``auto`` means INT8, FP16 as well, and take the faster.

    What was measured is kept, and read by the service. Without a GPU nothing can be measured,
    and INT8 it is.

    Args:
        request: What is wanted.
        trt: TensorRT of this machine.
        device: Its GPU.
        cache: Where engines lie.
        progress: Told how it goes on.
        force: Build and measure also where that was done.
        timed: Measures an engine.

    Raises:
        As :func:`~.builder.build`.
    """
    first = build(request, trt, device, cache, progress, force=force)
    key = first.entry.manifest.key
    if request.precision != "auto" or key.precision != "int8" or device.capability is None:
        return first
    second = build(replace(request, precision="fp16"), trt, device, cache, progress, force=force)
    both = {"int8": first, "fp16": second}
    keys = [built.entry.manifest.key for built in both.values()]
    fastest = None if force else cache.faster(keys)
    if fastest is None:
        fastest = _measured(both, cache, progress, timed)
    return both[fastest.precision]


def _measured(
    both: Dict[str, Built], cache: EngineCache, progress: Progress, timed: Measure
) -> BuildKey:
    try:
        times = {b.entry.manifest.key: timed(b.entry.engine) for b in both.values()}
    except EngineError as error:
        progress.say(f"INT8 is used; it could not be measured against FP16: {error}")
        return both["int8"].entry.manifest.key
    cache.store_verdict(times)
    fastest = min(times, key=lambda key: times[key])
    told = ", ".join(f"{key.precision} {ms:.2f} ms" for key, ms in times.items())
    progress.say(f"measured: {told}; {fastest.precision} is used")
    return fastest


def measure_on_device(
    engine: Path,
    trt: TensorRt,
    open_device: Callable[[], Device] = Device.open,
    seconds: float = _SECONDS,
) -> float:
    """Run an engine for a few seconds on the first GPU; the median of its time there, ms.

    Raises:
        EngineError: It cannot be run.
    """
    found = engine_for(str(engine), trt=trt)
    with open_device() as device:
        return measure(device, found.open, found.size, seconds=seconds).gpu_compute.median
