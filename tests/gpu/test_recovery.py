"""A fault on a real device while frames are counted, and what comes after it."""

import subprocess
import sys
import textwrap

import pytest

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import properties

pytestmark = pytest.mark.gpu

# In a process of its own: the contexts of other tests must not fall with this one's.
PROGRAM = """
    import ctypes, sys
    import numpy as np
    from edgecount.config import ModelSettings
    from edgecount.errors import DeviceLostError
    from edgecount.infer.cuda import backend as backends
    from edgecount.records import Frame, FrameInfo
    from edgecount.toolchain.bench_cuda import cameras_spec

    spec = cameras_spec(1, ModelSettings(name="head-n", precision="fp32"))

    def frame(index):
        image = np.full((480, 640, 3), 90, np.uint8)
        return Frame(FrameInfo("camera0", index, 0.0, 0.04 * index, 640, 480), image)

    backend = backends.create(spec)
    for index in range(5):
        backend.submit([frame(index)])
        assert backend.collect(10.0) is not None
    print("counts", flush=True)
    # A copy kernel's destination is nowhere: the fault that a bad pointer makes.
    stream = backend.streams.prepare
    module = backend.device.module(open(sys.argv[1], "rb").read())
    stream.launch(module.function("fault"), (1, 1, 1), (32, 1, 1), [ctypes.c_void_p(16)])
    try:
        for index in range(5, 10):
            backend.submit([frame(index)])
            backend.collect(10.0)
        print("nothing happened", flush=True)
    except DeviceLostError as error:
        print("lost", error, flush=True)
    backend.close()
    print("closed", flush=True)
    try:
        backends.create(spec)
    except DeviceLostError as error:
        print("again", error, flush=True)
"""
FAULT = 'extern "C" __global__ void fault(int *nowhere) { nowhere[threadIdx.x] = 1; }'


@pytest.fixture(autouse=True)
def _needs_a_device() -> None:
    try:
        properties()
    except EngineError as error:
        pytest.skip(str(error))
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")


@pytest.mark.timeout(300)
def test_a_fault_ends_in_one_clear_error_and_the_next_process_counts(tmp_path) -> None:
    source, image = tmp_path / "fault.cu", tmp_path / "fault.cubin"
    source.write_text(FAULT)
    arch = f"-arch={properties().arch}"
    subprocess.run(["nvcc", "-cubin", arch, "-o", str(image), str(source)], check=True)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(image)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout[-3000:], done.stderr[-3000:], done.returncode)
        words = [line.split()[0] for line in done.stdout.splitlines()]
        assert [word for word in words if word in KINDS] == ["counts", "lost", "closed", "again"]
        assert done.returncode == 0


KINDS = ("counts", "lost", "closed", "again")
