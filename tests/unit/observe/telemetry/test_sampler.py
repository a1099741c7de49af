import threading
import time

from edgecount.observe.metrics import Metrics
from edgecount.observe.telemetry.base import Reading
from edgecount.observe.telemetry.sampler import Sampler


class Fake:
    def __init__(self, name, reading):
        self.name = name
        self.reading = reading
        self.closed = False

    def read(self):
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading

    def close(self):
        self.closed = True


def test_the_first_source_counts_and_the_others_add():
    first = Fake("a", Reading(gpu_utilization_ratio=0.0, temperature_celsius={"gpu": 50.0}))
    second = Fake(
        "b",
        Reading(
            gpu_utilization_ratio=0.9,
            throttled=True,
            temperature_celsius={"gpu": 1.0, "cpu": 40.0},
            power_mode="MAXN",
        ),
    )
    reading = Sampler([first, second]).sample()
    assert reading.gpu_utilization_ratio == 0.0
    assert reading.throttled is True
    assert reading.temperature_celsius == {"gpu": 50.0, "cpu": 40.0}
    assert reading.power_mode == "MAXN"


def test_a_source_that_fails_does_not_take_the_others_along():
    sampler = Sampler([Fake("a", OSError("driver gone")), Fake("b", Reading(host_cpu_ratio=0.5))])
    assert sampler.sample().host_cpu_ratio == 0.5


def test_samples_in_the_background_and_closes_its_sources():
    fake = Fake("a", Reading(host_cpu_ratio=0.1))
    sampler = Sampler([fake], interval_s=0.01)
    assert sampler.latest() is None
    sampler.start()
    wait_for(lambda: sampler.latest() is not None)
    fake.reading = Reading(host_cpu_ratio=0.7)
    wait_for(lambda: sampler.latest().host_cpu_ratio == 0.7)
    sampler.close()
    sampler.close()
    assert fake.closed


def test_a_driver_that_hangs_blocks_no_scrape_and_its_values_end():
    now = [0.0]
    hang = threading.Event()

    class Hanging(Fake):
        def read(self):
            if now[0] > 0:
                hang.wait(10)
            return self.reading

    sampler = Sampler([Hanging("a", Reading(host_cpu_ratio=0.1))], 0.01, lambda: now[0])
    sampler.start()
    wait_for(lambda: sampler.latest() is not None)
    now[0] = 100.0
    metrics = Metrics(device=sampler.latest)
    begun = time.monotonic()
    names = {family.name for family in metrics.registry.collect()}
    assert time.monotonic() - begun < 1.0
    assert "edgecount_host_cpu_utilization_ratio" not in names
    hang.set()
    sampler.close()


def wait_for(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
