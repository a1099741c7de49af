"""NVML on a real card; the unit tests use a fake."""

import pytest

from edgecount.observe.telemetry.nvml import open_nvml

pytestmark = pytest.mark.gpu


def test_a_real_card_tells_what_is_promised():
    card = open_nvml()
    if card is None:
        pytest.skip("no GPU answers NVML")
    name, driver, capability = card.identity()
    reading = card.read()
    card.close()
    assert name
    assert driver.split(".")[0].isdigit()
    assert capability >= (5, 0)
    assert 0 < reading.gpu_memory_bytes["used"] <= reading.gpu_memory_bytes["total"]
    assert 0.0 <= reading.gpu_memory_ratio <= 1.0
    assert 0.0 <= reading.gpu_utilization_ratio <= 1.0
    assert reading.throttled in (True, False)
    assert 0 < reading.temperature_celsius["gpu"] < 120
