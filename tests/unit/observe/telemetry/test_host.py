from edgecount.observe.telemetry.host import Host


def test_this_machine():
    reading = Host().read()
    assert 0 < reading.host_memory_bytes["available"] <= reading.host_memory_bytes["total"]
    assert 0.0 <= reading.host_cpu_ratio <= 1.0
    assert reading.gpu_memory_bytes == {}


def test_temperatures_are_left_to_others_when_told_so():
    assert Host(temperatures=False).read().temperature_celsius == {}
