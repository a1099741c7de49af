"""What the TensorRT plugin enqueues, without TensorRT, on a GPU with nvcc."""

import ctypes
import shutil
import subprocess
from ctypes import c_float, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest
from support import nms_cases
from support.device_memory import download, upload
from support.nms_run import check, unpacked

from edgecount.infer.cuda.compiler import plugins_folder
from edgecount.infer.cuda.driver import Device
from edgecount.infer.cuda.postprocess import HEADS, DetectionBuffers
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox

pytestmark = pytest.mark.gpu

SIZE, MOST = (640, 640), 300
THRESHOLDS = Thresholds(0.1, 0.6)


@pytest.fixture(scope="module", params=["yolov8", "ltrb"])
def head(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shim(device: Device, head: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    made = tmp_path_factory.mktemp("shim") / "shim.so"
    macros = [f"-DHEAD={HEADS[head]}", "-DHALF_OUTPUT=0", "-DONE_CLASS=0"]
    folder = plugins_folder() / "nms_plugin"
    command = ["nvcc", "-std=c++14", f"-arch={device.properties.arch}", "--fmad=false", *macros]
    command += ["-Xcompiler", "-fPIC", "-shared", f"-I{folder}", "-o", str(made)]
    done = subprocess.run(
        [*command, str(Path(__file__).parent / "plugin_shim.cu")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(made))
    library.shim_workspace.restype = c_size_t
    return library


def test_gives_the_references_detections(device: Device, shim: ctypes.CDLL, head: str) -> None:
    random = np.random.default_rng()
    stream = device.stream()
    recipe = nms_cases.recipe(head, SIZE, 3)
    outputs = [nms_cases.output(recipe, SIZE, n, random) for n in (0, 20, 400)]
    rows, batch = nms_cases.rows_of(recipe, SIZE), len(outputs)
    output = upload(device, stream, np.stack(outputs))
    workspace = device.allocate(shim.shim_workspace(batch, rows))
    found = device.allocate(DetectionBuffers.bytes_for(batch, MOST))
    buffers = DetectionBuffers.at(found.pointer, batch, MOST)
    wanted = (c_int * 2)(*recipe.wanted())
    for _ in range(2):
        stream.fill(workspace.pointer, 0xAD, workspace.size)  # TensorRT does not clear it
        failed = shim.shim_enqueue(
            HEADS[head],
            len(recipe.classes),
            wanted,
            len(wanted),
            *SIZE,
            MOST,
            c_float(THRESHOLDS.score),
            c_float(THRESHOLDS.iou),
            batch,
            rows,
            *(
                c_void_p(p)
                for p in (
                    output.pointer,
                    buffers.boxes,
                    buffers.scores,
                    buffers.classes,
                    buffers.count,
                    workspace.pointer,
                    stream.handle,
                )
            ),
        )
        assert failed == 0
        size = DetectionBuffers.bytes_for(batch, MOST)
        raw = download(device, stream, found.pointer, (size,), np.uint8)
        for output_, have in zip(outputs, unpacked(raw, batch, MOST)):
            box = Letterbox.fit(*SIZE, *SIZE)
            best = nms_cases.expected(recipe, SIZE, THRESHOLDS, output_, box)
            check(have, type(best)(best.boxes[:MOST], best.scores[:MOST], best.classes[:MOST]), 16)
