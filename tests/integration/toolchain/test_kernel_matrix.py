"""Every kernel compiles for every board, with the compilers that know them.

EDGECOUNT_NVRTC_DIR  a folder with cu11 and cu13, each filled by pip install --target
                     (make kernels does it)
"""

import os
from pathlib import Path

import pytest

from edgecount.errors import EngineError
from edgecount.infer.cuda.compiler import compile_with, plugins_folder
from edgecount.toolchain import kernels

pytestmark = pytest.mark.integration

FOLDER = os.environ.get("EDGECOUNT_NVRTC_DIR", "")
needs_nvrtc = pytest.mark.skipif(
    not FOLDER, reason="EDGECOUNT_NVRTC_DIR is not set; make kernels fills such a folder"
)
# Shared memory that every block can have, and registers that a thread can, on all boards.
MOST_SHARED, MOST_REGISTERS = 48 * 1024, 255
# Kernels whose every thread works all the time: what they spill they feel.
UNSPILLED = ("preprocess", "nms")


def test_every_source_is_in_the_matrix() -> None:
    assert set(kernels.VARIANTS) == {p.stem for p in plugins_folder().glob("*.cu")}


@needs_nvrtc
@pytest.mark.parametrize(
    ("package", "arch"),
    [
        *(("cu11", arch) for arch in ("sm_53", "sm_62", "sm_72", "sm_87")),
        *(("cu13", arch) for arch in ("sm_87", "sm_90", "sm_110")),
    ],
)
def test_every_kernel_compiles(package: str, arch: str) -> None:
    if not (Path(FOLDER) / package).is_dir():
        pytest.skip(f"{FOLDER} has no {package}: run make kernels")
    built = list(kernels.build(kernels.nvrtc_in(Path(FOLDER) / package), [arch]))
    assert {b.source for b in built} == set(kernels.VARIANTS)
    for one in built:
        assert one.size > 0
        assert one.kernels
        for kernel in one.kernels:
            assert 0 < kernel.registers <= MOST_REGISTERS
            assert kernel.shared <= MOST_SHARED
            spilled = kernel.spill_stores + kernel.spill_loads
            assert spilled == 0 or one.source not in UNSPILLED, (one.defines, kernel)


@needs_nvrtc
def test_what_the_compiler_says_reaches_the_caller() -> None:
    nvrtc = kernels.nvrtc_in(Path(FOLDER) / "cu13")
    with pytest.raises(
        EngineError, match=r"(?s)preprocess\.cu cannot be compiled for sm_90.*no_number"
    ):
        compile_with(nvrtc, "preprocess", "sm_90", {"PIXELS": "no_number"})
    with pytest.raises(EngineError, match="sm_53"):
        compile_with(nvrtc, "preprocess", "sm_53", {})
