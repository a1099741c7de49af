"""The board and its GPU: model, driver, CUDA, TensorRT, INT8 units, power, heat."""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from edgecount.infer.tensorrt.versions import has_int8
from edgecount.observe.telemetry.base import Reading
from edgecount.observe.telemetry.jetson import Jetson, is_jetson, model
from edgecount.observe.telemetry.nvml import open_nvml
from edgecount.toolchain.doctor.finding import Finding

Capability = Tuple[int, int]
# SoC in the device tree → compute capability of its GPU.
_TEGRA: Dict[str, Capability] = {
    "tegra210": (5, 3),
    "tegra186": (6, 2),
    "tegra194": (7, 2),
    "tegra234": (8, 7),
    "tegra264": (11, 0),
}
_JETPACK = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}
_MEMORY_BUDGET = 0.70
_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")

Version = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class Gpu:
    """The GPU of this machine.

    Attributes:
        name: As its driver or board calls it.
        driver: What drives it, with version.
        capability: Compute capability, or None where it is not known.
        reading: Its telemetry now.
    """

    name: str
    driver: str
    capability: Optional[Capability]
    reading: Reading


def installed(package: str) -> Optional[str]:
    """The version of an installed Python package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine(root: Path = Path("/"), version: Version = installed) -> Iterator[Finding]:
    """All checks of the device.

    Args:
        root: Under which ``sys``, ``proc``, ``etc``, ``usr`` and ``var`` lie.
        version: The version of a Python package, None where it is not installed.
    """
    gpu = jetson_gpu(root) if is_jetson(root) else discrete_gpu()
    yield board(root)
    if gpu is None:
        yield no_gpu(root)
        return
    yield Finding("gpu", "ok", f"{gpu.name}, {gpu.driver}")
    yield int8(gpu)
    yield from software(root, version)
    yield from load(gpu.reading)
    if is_jetson(root):
        yield power(root, gpu.reading)


def board(root: Path) -> Finding:
    """Which board or computer it is."""
    if not is_jetson(root):
        return Finding("board", "ok", model(root) or "no Jetson: a computer")
    release = _text(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+).*?REVISION: *([\d.]+)", release)
    if found is None:
        return Finding("board", "ok", model(root) or "Jetson")
    jetpack = _JETPACK.get(found.group(1))
    os_version = f"L4T {found.group(1)}.{found.group(2)}"
    shown = f"{model(root) or 'Jetson'}, {os_version}"
    return Finding("board", "ok", f"{shown} (JetPack {jetpack})" if jetpack else shown)


def jetson_gpu(root: Path) -> Gpu:
    """The GPU of a Jetson."""
    compatible = _text(root / "proc/device-tree/compatible")
    chip = next((c for c in _TEGRA if c in compatible), None)
    return Gpu(
        name=f"the board's GPU ({chip})" if chip else "the board's GPU",
        driver="driver of the board's L4T",
        capability=_TEGRA.get(chip) if chip else None,
        reading=Jetson(root).read(),
    )


def discrete_gpu() -> Optional[Gpu]:
    """The first GPU that NVML knows, or None."""
    source = open_nvml()
    if source is None:
        return None
    try:
        name, driver, capability = source.identity()
        return Gpu(name, f"driver {driver}", capability, source.read())
    finally:
        source.close()


def no_gpu(root: Path) -> Finding:
    """Why no GPU answers."""
    if (root / "proc/driver/nvidia").exists() or list(root.glob("dev/nvidia[0-9]*")):
        return Finding(
            "gpu",
            "warn",
            "an NVIDIA driver is loaded, but NVML does not answer",
            "install the telemetry package: pip install 'edgecount[cuda]'; in a container, pass "
            "the GPU in (--gpus all)",
        )
    return Finding("gpu", "ok", "none; the network runs on the CPU")


def int8(gpu: Gpu) -> Finding:
    """Whether the GPU computes INT8 faster than FP16."""
    if gpu.capability is None:
        return Finding("int8", "skip", "the GPU's compute capability is not known")
    shown = f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    if has_int8(gpu.capability):
        return Finding("int8", "ok", f"the GPU has INT8 units ({shown})")
    return Finding(
        "int8",
        "warn",
        f"the GPU has no INT8 units ({shown})",
        "use model.precision: fp16 (auto does); an INT8 engine would be slower",
    )


def software(root: Path, version: Version) -> Iterator[Finding]:
    """CUDA's and TensorRT's Python packages."""
    bindings = version("cuda-python") or version("cuda-bindings")
    if bindings:
        yield Finding("cuda", "ok", f"Python bindings {bindings}{_toolkit(root)}")
    else:
        yield Finding(
            "cuda", "warn", f"no Python bindings{_toolkit(root)}", "pip install 'edgecount[cuda]'"
        )
    found = [f"{name} {version(name)}" for name in _TENSORRT if version(name)]
    if found:
        yield Finding("tensorrt", "ok", ", ".join(found))
    else:
        yield Finding(
            "tensorrt",
            "warn",
            "not visible to this Python; the GPU's fastest engine cannot be used",
            "on a Jetson: apt install python3-libnvinfer, and make the environment with "
            "python3 -m venv --system-site-packages",
        )


def load(reading: Reading) -> Iterator[Finding]:
    """GPU memory and throttling now."""
    ratio = reading.gpu_memory_ratio
    if ratio is not None:
        total = reading.gpu_memory_bytes["total"] / 2**30
        detail = f"{ratio:.0%} of {total:.1f} GiB used"
        if ratio > _MEMORY_BUDGET:
            remedy = "stop other programs (on a Jetson the desktop), or use fewer cameras"
            yield Finding("gpu memory", "warn", detail, remedy)
        else:
            yield Finding("gpu memory", "ok", detail)
    if reading.throttled:
        remedy = "clean the fan, shade the case, or use a stronger supply"
        yield Finding("throttling", "warn", "heat or the power supply holds clocks down", remedy)
    elif reading.throttled is not None:
        yield Finding("throttling", "ok", "none")


def power(root: Path, reading: Reading) -> Finding:
    """Whether a Jetson runs in its fastest mode with its clocks held up."""
    mode = reading.power_mode
    if mode is None:
        return Finding("power mode", "skip", "nvpmodel has left no trace")
    remedy = "edgecount install-service --maxperf, or: nvpmodel -m 0 && jetson_clocks"
    if not mode.upper().startswith("MAXN"):
        return Finding("power mode", "warn", f"{mode}, not the fastest", remedy)
    if not _clocks_are_held(root):
        return Finding("power mode", "warn", f"{mode}, but clocks follow the load", remedy)
    return Finding("power mode", "ok", f"{mode}, clocks held up")


def _clocks_are_held(root: Path) -> bool:
    """jetson_clocks raises the least frequency of every CPU to the highest."""
    folders = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    held: List[bool] = [
        _text(f / "scaling_min_freq") == _text(f / "scaling_max_freq") for f in folders
    ]
    return bool(held) and all(held)


def _toolkit(root: Path) -> str:
    text = _text(root / "usr/local/cuda/version.json")
    found = re.search(r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([\d.]+)"', text)
    return f", toolkit {found.group(1)}" if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
