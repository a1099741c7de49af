"""The measurement behind ``auto``, on a fake device."""

import pytest
from support import engines
from support.fake_cuda import FakeCuda

from edgecount.errors import ConfigError
from edgecount.infer.cuda.driver import Device
from edgecount.toolchain.build.auto import measure_on_device


@pytest.mark.parametrize("flavour", ["8.2", "8.6", "10.3", "11.0", "rtx"])
def test_an_engine_of_any_version_is_timed(tmp_path, flavour) -> None:
    calls = FakeCuda()
    trt = engines.tensorrt(flavour, calls)
    path = engines.write(tmp_path / "a.engine", engines.network(), flavour)
    took = measure_on_device(path, trt, lambda: Device.open(0, calls), seconds=0.05)
    assert took > 0.0


def test_a_missing_engine_is_told(tmp_path) -> None:
    calls = FakeCuda()
    trt = engines.tensorrt("10.3", calls)
    with pytest.raises(ConfigError):
        measure_on_device(tmp_path / "no.engine", trt, lambda: Device.open(0, calls))
