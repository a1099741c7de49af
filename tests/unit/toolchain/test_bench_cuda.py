"""The measuring itself, on the emulated device; its numbers mean nothing."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cuda_emulator.emulator import needs_compiler
from support.emulated_cuda import EmulatedCuda, HostNetwork
from support.onnx_models import picture_with_spots, spot_model, write_recipe

from edgecount.config import ModelSettings
from edgecount.errors import DeviceLostError
from edgecount.infer import onnxruntime
from edgecount.infer.cuda import backend as backends
from edgecount.infer.cuda.backend import CudaBackend
from edgecount.toolchain import bench_cuda

SIDE = 64


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    needs_compiler()
    path = spot_model(tmp_path / "spots.onnx", "ltrb", width=SIDE, height=SIDE)
    write_recipe(path, "ltrb", width=SIDE, height=SIDE)
    return ModelSettings(path=path)


@pytest.fixture
def backend(settings: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> Any:
    return emulated(EmulatedCuda(monkeypatch), bench_cuda.cameras_spec(2, settings))


def emulated(cuda: EmulatedCuda, spec: Any) -> CudaBackend:
    network = HostNetwork(cuda.calls, onnxruntime.OrtNetwork(spec.path), spec.size)
    backend = CudaBackend(spec, lambda *_: network, open_device=cuda.open, load=cuda.load)
    backend.cuda = cuda  # type: ignore[attr-defined]
    return backend


def images(layout: str) -> Any:
    if layout == "nv12":
        return [np.full((96, 64), 90, np.uint8)]
    return [picture_with_spots([(20, 20)], 64, 64)]


def test_cameras_take_turns_in_batches_and_their_time_goes_on(backend: Any) -> None:
    pictures = bench_cuda.pinned_pictures(backend.device, images("nv12"), "nv12")
    assert (pictures[0].info.height, pictures[0].size) == (64, 96 * 64)
    jobs = list(itertools.islice(bench_cuda.feed(pictures, 5, 2)(), 4))
    assert [[p.camera for p in job] for job in jobs] == [[0, 1], [2, 3], [4], [0, 1]]
    assert [job[0].dt for job in jobs] == [0.0, 0.0, 0.0, 0.04]


def test_every_figure_is_there(backend: Any) -> None:
    pictures = bench_cuda.pinned_pictures(backend.device, images("bgr"), "bgr")
    backend.pipeline.time_network = lambda batch, runs: 0.02 * runs
    shown = bench_cuda.feed(pictures, 2, 2)
    result, batches = bench_cuda.bench(backend, shown, 2, seconds=0.1, turns=1)
    assert result.network_fps == pytest.approx(100.0)
    assert result.fps > 0
    assert result.overlap == pytest.approx(result.fps / result.network_fps)
    assert result.host_us > 0
    assert set(result.busy) == {"prepare", "infer", "post"}
    assert len(batches) == 64
    json.dumps(result.as_dict())


def test_a_lost_device_ends_the_run(backend: Any) -> None:
    pictures = bench_cuda.pinned_pictures(backend.device, images("bgr"), "bgr")
    backend.cuda.calls.fail["cuGraphLaunch"] = 700
    with pytest.raises(DeviceLostError):
        bench_cuda.run(backend, bench_cuda.feed(pictures, 2, 2)(), 20)


def test_a_clip_is_measured_and_drawn(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), images("bgr")[0])
    cuda = EmulatedCuda(monkeypatch)
    monkeypatch.setattr(backends, "create", lambda spec: emulated(cuda, spec))
    found = bench_cuda.bench_clip(
        str(folder), settings, batches=(1,), seconds=0.01, turns=1, out=tmp_path
    )
    assert found["device"] == "Fake"
    assert found["batch 1"]["batch"] == 1  # type: ignore[index]
    assert (tmp_path / "batch1.png").exists()
    assert json.loads((tmp_path / "batch1.trace.json").read_text())
