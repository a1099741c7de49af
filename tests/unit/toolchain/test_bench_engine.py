import json

import numpy as np
import pytest
from support import engines
from support.fake_cuda import FakeCuda

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.tensorrt import loader
from edgecount.infer.tensorrt.executor import TensorRTNetwork
from edgecount.observe.telemetry.base import Reading
from edgecount.toolchain.bench_engine import Spread, fluctuation, measure, power

SIZE = (engines.SIDE, engines.SIDE)


def run(tmp_path, *, plan=None, batch=1, **options):
    calls = FakeCuda()
    device = Device.open(0, calls)
    trt = engines.tensorrt("10.3", calls)
    model = engines.network(dynamic=True)
    path = engines.write(
        tmp_path / "a.engine", model, "10.3", profiles=[engines.profile(4)], **(plan or {})
    )

    def open_network(device, stream):
        return TensorRTNetwork(device, loader.load(path, trt), SIZE, graphs=False)

    return calls, measure(device, open_network, SIZE, batch=batch, seconds=0.0, **options)


def test_every_part_is_measured(tmp_path):
    _, result = run(tmp_path, batch=2)
    assert result.network == "tensorrt 10.3"
    assert result.device == Device.open(0, FakeCuda()).properties.name
    assert result.input == (2, 3, 32, 32)
    assert result.runs == 10
    assert result.graph
    assert result.fps == pytest.approx(2 * result.throughput)
    # The fake device takes 0.125 ms for each piece of work.
    for spread in (result.gpu_compute, result.h2d, result.d2h):
        assert spread.min >= 0.125
    assert result.enqueue.mean > 0.0
    assert result.latency.min >= result.gpu_compute.min + result.h2d.min + result.d2h.min
    assert result.memory.limit_ratio == 0.7
    assert result.power.whole_watts is None
    shown = json.loads(json.dumps(result.as_dict()))
    assert shown["gpu_compute"]["median"] == round(result.gpu_compute.median, 4)


def test_copies_and_network_of_a_batch_are_in_order_and_those_of_others_are_not(tmp_path):
    calls, _ = run(tmp_path, graph=False)
    network = calls.find("tensorrt")[-1]
    uploads = [w for w in calls.work if "HtoD" in w.what or w.what == "upload"]
    downloads = [w for w in calls.work if "DtoH" in w.what or w.what == "download"]
    assert calls.before(uploads[-1], network)
    assert calls.before(network, downloads[-1])
    assert not calls.before(downloads[-2], network)


def test_without_a_graph_where_it_cannot_be_captured(tmp_path):
    calls = FakeCuda()
    calls.fail["cuGraphInstantiate"] = 900
    device = Device.open(0, calls)
    trt = engines.tensorrt("8.6", calls)
    path = engines.write(tmp_path / "a.engine", engines.network(), "8.6")
    result = measure(
        device,
        lambda device, stream: TensorRTNetwork(device, loader.load(path, trt), SIZE, graphs=False),
        SIZE,
        seconds=0.0,
    )
    assert not result.graph
    assert result.runs == 10


def test_a_network_that_fails_says_why_and_is_closed(tmp_path):
    with pytest.raises(EngineError, match="no kernel image"):
        run(tmp_path, plan={"fail": "no kernel image"})


def test_power_is_read_while_it_runs(tmp_path):
    reading = Reading(power_watts={"VDD_IN": 12.0, "VDD_CPU": 3.0}, power_mode="MAXN")
    _, result = run(tmp_path, read_power=lambda: reading)
    assert result.power.mode == "MAXN"
    assert result.power.whole_watts == 12.0
    assert result.power.joules_per_frame == pytest.approx(12.0 / result.fps)


def test_rails_add_up_where_none_feeds_all():
    readings = [
        Reading(power_watts={"VDD_GPU_SOC": 4.0, "VDD_CPU_CV": 1.0}, throttled=False),
        Reading(power_watts={"VDD_GPU_SOC": 6.0, "VDD_CPU_CV": 3.0}, throttled=True),
    ]
    found = power(readings, 10.0)
    assert found.watts == {"VDD_GPU_SOC": 5.0, "VDD_CPU_CV": 2.0}
    assert found.whole_watts == 7.0
    assert found.joules_per_frame == 0.7
    assert found.throttled is True


def test_a_steady_rate_does_not_fluctuate_and_an_uneven_one_does():
    assert fluctuation(np.arange(0, 6, 0.04)) == pytest.approx(0.0, abs=1e-9)
    uneven = np.concatenate([np.arange(0, 2, 0.04), np.arange(2, 4, 0.02), np.arange(4, 6, 0.04)])
    found = fluctuation(uneven)
    assert found is not None
    assert found == pytest.approx(np.std([25, 25, 50, 50, 25]) / 35, rel=0.02)
    assert fluctuation(np.arange(0, 2, 0.04)) is None


def test_spread_of_known_times():
    spread = Spread.of([n / 1000 for n in range(1, 101)])
    assert (spread.min, spread.max, spread.mean) == pytest.approx((1.0, 100.0, 50.5))
    assert (spread.median, spread.p90, spread.p99) == pytest.approx((50.5, 90.1, 99.01))
