import gc
from typing import Any

import cv2
import numpy as np
import pytest
from support.host_driver import HostDriver

from edgecount.capture import _surfaces
from edgecount.capture._surfaces import Planes, SurfacePool
from edgecount.errors import SourceError
from edgecount.records import DeviceFrame, FrameInfo, Surface


def picture(rows: int = 32, pitch: int = 64, gap: int = 0) -> Any:
    made = np.random.default_rng(rows).integers(0, 256, (rows * 3 // 2 + gap, pitch), np.uint8)
    return made, Planes(made.ctypes.data, made[rows + gap :].ctypes.data, pitch, rows)


@pytest.mark.parametrize("gap", [0, 8])
def test_a_copy_holds_both_planes_wherever_they_are(driver: HostDriver, gap: int) -> None:
    made, planes = picture(gap=gap)
    pool = SurfacePool(0)
    surface = pool.copy(planes)
    expected = np.concatenate([made[:32], made[32 + gap :]])
    assert driver.memory[surface.luma].raw == expected.tobytes()
    assert surface.chroma == surface.luma + 32 * 64


def test_another_size_frees_what_is_of_no_use(driver: HostDriver) -> None:
    pool = SurfacePool(0)
    _memory, small = picture(32)
    _other, large = picture(64)
    held = pool.copy(small)
    del held
    kept = pool.copy(small)
    assert driver.taken == 1
    later = pool.copy(large)
    del kept  # a size that does not come any more
    del later
    again = pool.copy(large)
    assert driver.taken == 2
    assert len(driver.memory) == 2
    other = pool.copy(large)
    assert driver.taken == 3
    assert len(driver.memory) == 2  # the small one went when room was looked for
    del again, other
    pool.close()
    pool.close()
    assert not driver.memory


def test_without_memory_there_is_one_clear_error_and_nothing_is_freed_twice(
    driver: HostDriver,
) -> None:
    pool = SurfacePool(0)
    _memory, planes = picture()
    held = pool.copy(planes)
    driver.failing = 700
    with pytest.raises(SourceError, match="CUDA error 700"):
        pool.copy(planes)
    pool.close()
    del held
    gc.collect()
    assert len(driver.memory) == 1  # the context is lost: its memory is not ours to free


def test_a_device_that_is_not_there(driver: HostDriver) -> None:
    driver.failing = 101
    with pytest.raises(SourceError, match="CUDA error 101"):
        SurfacePool(3)


def test_a_picture_comes_to_the_host_without_its_pitch(driver: HostDriver) -> None:
    picture = np.random.default_rng(5).integers(16, 235, (32, 48, 3), np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 6)
    yuv = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    memory = np.zeros((48, 64), np.uint8)
    memory[:32, :48] = yuv[:32]
    memory[32:, 0:48:2] = yuv[32:40].reshape(16, 24)
    memory[32:, 1:48:2] = yuv[40:48].reshape(16, 24)
    surface = Surface(0, memory.ctypes.data, memory[32:].ctypes.data, 64, memory)
    info = FrameInfo("door", 0, 0.0, 0.0, 48, 32)
    found = DeviceFrame(info, surface, _surfaces.download).image
    assert found.shape == (32, 48, 3)
    assert np.abs(found.astype(int) - picture).mean() < 4
