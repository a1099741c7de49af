"""Compile every kernel for every board, without a GPU, and say what each needs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

from edgecount.errors import EngineError
from edgecount.infer.cuda import tracker
from edgecount.infer.cuda.compiler import KernelReport, Nvrtc, compile_with, library_in
from edgecount.infer.cuda.postprocess import HEADS

Defines = Mapping[str, object]

# Jetson Nano, TX2, Xavier, Orin, H100, Thor.
ARCHITECTURES = ("sm_53", "sm_62", "sm_72", "sm_87", "sm_90", "sm_110")
# Each source with the macros that change its code most.
VARIANTS: Mapping[str, Sequence[Defines]] = {
    "preprocess": [{"OUTPUT": output} for output in (0, 1, 2)],
    "nms": [
        *({"HEAD": head, "HALF_OUTPUT": 0, "ONE_CLASS": 1} for head in HEADS.values()),
        {"HEAD": HEADS["yolov8"], "HALF_OUTPUT": 1, "ONE_CLASS": 0},
        {"HEAD": HEADS["ltrb"], "HALF_OUTPUT": 0, "ONE_CLASS": 1, "TILES": 1},
    ],
    "tracker": [tracker.DEFINES],
    "efficient_nms": [{}],
}


@dataclass(frozen=True)
class Built:
    """One source for one architecture.

    Attributes:
        source: Its name.
        arch: ``sm_87`` and the like.
        defines: Its macros.
        nvrtc: Version of the compiler.
        size: Of the cubin, bytes.
        kernels: What each kernel needs.
    """

    source: str
    arch: str
    defines: Defines
    nvrtc: str
    size: int
    kernels: Tuple[KernelReport, ...]

    def rows(self) -> Iterator[Dict[str, Any]]:
        """One row per kernel, for a table or JSON."""
        macros = " ".join(f"{k}={v}" for k, v in self.defines.items())
        for kernel in self.kernels:
            yield {
                "source": self.source,
                "macros": macros,
                "arch": self.arch,
                "nvrtc": self.nvrtc,
                **kernel._asdict(),
            }

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "kernels": [k._asdict() for k in self.kernels]}


def build(
    nvrtc: Nvrtc, archs: Sequence[str], variants: Mapping[str, Sequence[Defines]] = VARIANTS
) -> Iterator[Built]:
    """Compile all variants of all sources for each architecture.

    Raises:
        EngineError: The compiler refuses one; the message has its own.
    """
    for arch in archs:
        for source, several in variants.items():
            for defines in several:
                made = compile_with(nvrtc, source, arch, defines)
                version = ".".join(map(str, made.nvrtc))
                yield Built(source, arch, defines, version, len(made.image), made.reports)


def nvrtc_in(folder: Path) -> Nvrtc:
    """The compiler that ``pip install --target`` put into a folder.

    Raises:
        EngineError: There is none.
    """
    library = library_in(folder)
    if library is None:
        raise EngineError(
            f"there is no NVRTC in {folder}: fill it with  pip install --no-deps --target {folder} "
            "nvidia-cuda-nvrtc-cu11==11.8.89  (sm_53 to sm_87) or nvidia-cuda-nvrtc (from sm_75)"
        )
    return Nvrtc(library)
