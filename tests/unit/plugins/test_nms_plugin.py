"""The TensorRT plugin compiles and answers; TensorRT itself is not here (see plugins/README.md)."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.cuda_emulator import emulator

STUB = Path(__file__).parents[2] / "support" / "tensorrt_stub"
PLUGIN = emulator.PLUGINS / "nms_plugin"


def run(*command: object) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def test_the_plugin_answers_as_tensorrt_asks(tmp_path: Path) -> None:
    emulator.needs_compiler()
    program = tmp_path / "driver"
    sources = [Path(__file__).parent / "plugin_driver.cpp", PLUGIN / "nms_plugin.cpp"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    run("g++", "-std=c++17", *warnings, "-I", STUB, "-I", PLUGIN, *sources, "-o", program)
    assert run(program).splitlines() == [
        "shape 7 100 4",
        "shape 7 100",
        "shape 7 100",
        "shape 7",
        "workspace 16400",
        "enqueue head=4 classes=3 wanted=0,2 levels=2 half=1 batch=2 rows=8400 threshold=0.100",
    ]


def test_the_chooser_compiles(tmp_path: Path) -> None:
    emulator.needs_compiler()
    run("g++", "-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-I", STUB,
        PLUGIN / "nms_request.cpp")  # fmt: skip


@pytest.mark.parametrize("head", [1, 4])
def test_the_kernels_compile_with_nvcc(head: int, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    macros = [f"-DHEAD={head}", "-DHALF_OUTPUT=1", "-DONE_CLASS=0"]
    run("nvcc", "-std=c++14", "-arch=sm_87", "--fmad=false", *macros, "-c", PLUGIN / "kernels.cu",
        "-o", tmp_path / "kernels.o")  # fmt: skip
