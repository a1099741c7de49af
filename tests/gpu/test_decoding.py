"""Pictures from the GPU's video engine, and the pipeline behind it, on a real device."""

import gc
import os
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest

from edgecount.capture import nvdec
from edgecount.capture._clock import Clock
from edgecount.config import ModelSettings
from edgecount.errors import EngineError, SourceError
from edgecount.infer.cuda import backend as backends
from edgecount.infer.cuda.driver import properties
from edgecount.records import DeviceFrame, Frame
from edgecount.toolchain.bench_cuda import cameras_spec

pytestmark = pytest.mark.gpu

FRAMES = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first pictures of an H.264 file, for a raw stream ends where it is cut."""
    try:
        properties()
    except EngineError as error:
        pytest.skip(str(error))
    pytest.importorskip("PyNvVideoCodec", exc_type=Exception)
    path = os.environ.get("EDGECOUNT_H264")
    if not path:
        pytest.skip("EDGECOUNT_H264 names no raw H.264 stream")
    with Path(path).open("rb") as stream:
        start = stream.read(2_000_000)
    cut = tmp_path_factory.mktemp("clip") / "cut.h264"
    cut.write_bytes(start)
    return str(cut)


def source(clip: str, **options: Any) -> nvdec.NvdecSource:
    made = nvdec.create("camera0", clip, nvdec.Options(**options), clock=Clock())
    made.open()
    return made


def read(reader: nvdec.NvdecSource, count: int) -> List[DeviceFrame]:
    frames = [reader.read() for _ in range(count)]
    return [frame for frame in frames if frame is not None]


def fetched(frame: DeviceFrame) -> Any:
    """The picture as it is on the device now; a frame keeps what it fetched once."""
    return DeviceFrame(frame.info, frame.surface, nvdec.download).image


def test_pictures_are_those_that_a_cpu_decodes(clip: str) -> None:
    reader, capture = source(clip), cv2.VideoCapture(clip)
    for frame in read(reader, 10):
        ok, expected = capture.read()
        assert ok
        assert frame.image.shape == expected.shape
        # The two turn YUV into colours with other matrices and roundings.
        assert np.abs(frame.image.astype(int) - expected).mean() < 6
        luma = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY).astype(float).ravel()
        other = cv2.cvtColor(expected, cv2.COLOR_BGR2GRAY).astype(float).ravel()
        assert np.corrcoef(luma, other)[0, 1] > 0.999
    reader.close()


def test_held_pictures_stay_while_the_file_is_opened_anew(clip: str) -> None:
    reader = source(clip, loop=True)
    first = read(reader, 1)[0]
    seen = first.image.copy()
    length = 1
    for frame in iter(reader.read, None):  # until the first picture comes again
        length += 1
        if length > 20 and np.array_equal(frame.image, seen):
            break
        assert length < 2000
    held = read(reader, 8)
    pictures = [fetched(frame) for frame in held]
    read(reader, 2 * length)  # two decoders later
    again = [fetched(frame) for frame in held]
    reader.close()
    gc.collect()
    for now, then in zip(again, pictures):
        assert np.array_equal(now, then)
    assert np.array_equal(fetched(first), seen)


def test_the_pipeline_tracks_what_the_engine_decodes(clip: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    backend = backends.create(cameras_spec(1, ModelSettings(name="head-n", precision="fp32")))
    on_device, on_host = [], []
    for host, counts in ((False, on_device), (True, on_host)):
        reader = source(clip, loop=True)
        backend.reset("camera0")
        for frame in read(reader, FRAMES):
            shown = Frame(frame.info, frame.image) if host else frame
            backend.submit([shown])
            tracked = backend.collect(10.0)
            assert tracked is not None
            counts.append(len(tracked[0].tracks))
        reader.close()
    backend.close()
    assert max(on_device) >= 3  # people are there
    # Colours are made by the kernel here and by OpenCV there: a level or two apart.
    assert abs(float(np.mean(on_device)) - float(np.mean(on_host))) < 0.5


def test_a_file_that_is_no_video_is_one_clear_error(clip: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="video decoder failed"):
        source(str(broken))
