"""The first GPU; tests that need one skip, with the driver's reason, where there is none."""

from typing import Iterator

import pytest

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device, Stream


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    try:
        device = Device.open()
    except EngineError as error:
        pytest.skip(str(error))
    with device:
        yield device


@pytest.fixture(scope="module")
def stream(device: Device) -> Stream:
    return device.stream()
