"""The CUDA backend on a real device, against the CPU backend on a real clip."""

import os
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np
import pytest

from edgecount.config import ModelSettings, Settings
from edgecount.errors import EngineError
from edgecount.infer.base import Backend
from edgecount.infer.cuda import backend as backends
from edgecount.infer.cuda.backend import CudaBackend
from edgecount.infer.cuda.driver import properties
from edgecount.records import Frame, FrameInfo, Tracked
from edgecount.runtime.backends import choose
from edgecount.runtime.plan import prepare
from edgecount.toolchain.evaluate.matching import overlaps

pytestmark = pytest.mark.gpu

CLIP = os.environ.get("EDGECOUNT_VTEST", "")
FRAMES = int(os.environ.get("EDGECOUNT_GPU_FRAMES", "120"))
LINE = {"name": "line", "from": [0.5, 0.0], "to": [0.5, 1.0]}


@pytest.fixture(scope="module", autouse=True)
def _needs_a_device() -> None:
    try:
        properties()
    except EngineError as error:
        pytest.skip(str(error))
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    if not CLIP:
        pytest.skip("EDGECOUNT_VTEST is not set")


@pytest.fixture(scope="module")
def images() -> List[Any]:
    capture = cv2.VideoCapture(CLIP)
    return [capture.read()[1] for _ in range(FRAMES)]


def plan_for(backend: str, precision: str, cameras: int, tiles: Any = None) -> Any:
    more = {} if tiles is None else {"tiles": tiles}
    settings = {
        "model": {"name": "head-n", "backend": backend, "precision": precision, "fallback": False},
        "cameras": [
            {"name": f"camera{n}", "source": f"{n}.avi", "lines": [LINE], **more}
            for n in range(cameras)
        ],
    }
    return prepare(Settings.model_validate(settings), lambda *_: None)


def run(backend: Backend, images: List[Any], cameras: int, batch: int) -> List[Tracked]:
    """All frames of all cameras, kept in flight as the runtime keeps them."""
    results: List[Tracked] = []
    waiting = 0
    for index, image in enumerate(images):
        frames = [frame_of(image, n, index) for n in range(cameras)]
        for first in range(0, cameras, batch):
            backend.submit(frames[first : first + batch])
            waiting += 1
            if waiting == backend.depth:
                results += backend.collect(60.0) or []
                waiting -= 1
    for _ in range(waiting):
        results += backend.collect(60.0) or []
    return results


def frame_of(image: Any, camera: int, index: int) -> Frame:
    shown = image if camera % 2 == 0 else np.ascontiguousarray(image[:, ::-1])
    info = FrameInfo(f"camera{camera}", index, 0.0, index / 10.0, image.shape[1], image.shape[0])
    return Frame(info, shown)


def by_frame(results: List[Tracked]) -> Dict[Tuple[str, int], Tracked]:
    return {(r.info.camera, r.info.index): r for r in results}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "tiles", [None, "2x2", {"columns": 2, "rows": 1, "whole": True}], ids=["whole", "2x2", "2x1"]
)
def test_two_cameras_in_a_batch_give_the_cpu_s_ids(images: List[Any], tiles: Any) -> None:
    expected, found = on_both(images, "fp32", tiles)
    same = [key for key in expected if same_ids(found[key], expected[key])]
    print(f"{len(same)} of {len(expected)} frames alike")
    assert len(same) >= 0.98 * len(expected)


@pytest.mark.timeout(600)
def test_half_precision_tracks_the_cpu_s_heads(images: List[Any]) -> None:
    """Not its ids: a score at the threshold gives one more, and all later ones another number."""
    expected, found = on_both(images, "fp16", None)
    heads = sum(len(t.tracks) for t in expected.values())
    met = 0
    for key, right in expected.items():
        iou = overlaps(found[key].tracks.boxes, right.tracks.boxes)
        met += int((iou.max(axis=0, initial=0.0) >= 0.5).sum())
    more = sum(len(t.tracks) for t in found.values()) - met
    print(f"{met} of {heads} heads met, {more} others")
    assert met >= 0.98 * heads
    assert more <= 0.02 * heads


def on_both(
    images: List[Any], precision: str, tiles: Any
) -> Tuple[Dict[Tuple[str, int], Tracked], Dict[Tuple[str, int], Tracked]]:
    """What the CPU, in FP32, and the GPU make of two cameras."""
    cpu = choose(plan_for("cpu", "fp32", 2, tiles), lambda *_: None).backend
    expected = by_frame(run(cpu, images, 2, 1))
    cpu.close()
    cuda = choose(plan_for("cuda", precision, 2, tiles), lambda *_: None).backend
    assert isinstance(cuda, CudaBackend)
    assert cuda.pipeline.graphs == {"infer", "post"}
    found = by_frame(run(cuda, images, 2, 2))
    cuda.close()
    assert found.keys() == expected.keys()
    return expected, found


def same_ids(one: Tracked, other: Tracked) -> bool:
    return one.tracks.ids.tolist() == other.tracks.ids.tolist()


@pytest.mark.timeout(600)
def test_batches_of_eight_give_what_single_frames_give(images: List[Any]) -> None:
    backend = backends.create(spec(8, "fp32"))
    few = images[:40]
    batched = by_frame(run(backend, few, 8, 8))
    backend.close()
    single = backends.create(spec(8, "fp32"))
    alone = by_frame(run(single, few, 8, 1))
    single.close()
    same = [key for key in alone if same_ids(batched[key], alone[key])]
    print(f"{len(same)} of {len(alone)} frames alike")
    assert len(same) >= 0.98 * len(alone)


@pytest.mark.timeout(600)
def test_memory_does_not_grow(images: List[Any]) -> None:
    backend = backends.create(spec(4, "fp32"))
    run(backend, images[:20], 4, 4)
    before = backend.device.free_bytes()
    run(backend, images, 4, 4)
    assert backend.device.free_bytes() >= before
    backend.close()


def spec(cameras: int, precision: str) -> Any:
    from edgecount.toolchain.bench_cuda import cameras_spec

    return cameras_spec(cameras, ModelSettings(name="head-n", precision=precision))
