"""TensorRT on a real device, as far as it is there: what runs is right, what cannot says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support import engines

from edgecount.config import Settings
from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device, properties
from edgecount.infer.tensorrt import efficient_nms, loader, versions
from edgecount.infer.tensorrt.efficient_nms import RowsKernel
from edgecount.infer.tensorrt.executor import TensorRTNetwork
from edgecount.infer.tensorrt.host import HostNetwork
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.runtime import backends
from edgecount.runtime.plan import prepare
from edgecount.toolchain.bench_engine import measure
from edgecount.toolchain.engines import onnx_for

pytestmark = pytest.mark.gpu
SIZE = (engines.SIDE, engines.SIDE)


@pytest.fixture(scope="module", autouse=True)
def _needs_a_device() -> None:
    try:
        properties()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def device():
    with Device.open() as opened:
        yield opened


@pytest.fixture
def tensorrt() -> TensorRt:
    """Whichever TensorRT is there; skips where none is."""
    try:
        return versions.find()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def real_engine(tmp_path: Path, tensorrt: TensorRt) -> Path:
    """An engine from the builder of whichever TensorRT is there."""
    trt: Any = tensorrt.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(engines.network().SerializeToString())
    path = tmp_path / "real.engine"
    path.write_bytes(builder.build_serialized_network(network, builder.create_builder_config()))
    return path


def test_the_rows_kernel_on_the_device(device: Device) -> None:
    batch, most = 3, 100
    random = np.random.default_rng(1)
    given = [
        np.array([[0], [most], [37]], np.int32),
        random.random((batch, most, 4), np.float32),
        random.random((batch, most), np.float32),
        random.integers(0, 80, (batch, most), np.int32),
    ]
    stream = device.stream()
    buffers = [device.allocate(a.nbytes) for a in given]
    for array, buffer in zip(given, buffers):
        stream.upload(buffer.pointer, array.ctypes.data, array.nbytes)
    rows = np.full((batch, most, 6), np.nan, np.float32)
    target = device.allocate(rows.nbytes)
    RowsKernel(device, most).launch(stream, batch, [b.pointer for b in buffers], target.pointer)
    stream.download(rows.ctypes.data, target.pointer, rows.nbytes)
    stream.synchronize()
    np.testing.assert_array_equal(rows, efficient_nms.rows(*given))


def test_a_real_engine_runs_or_its_refusal_is_one_clear_error(
    device: Device, tensorrt: TensorRt, real_engine: Path
) -> None:
    refused = versions.refusal(tensorrt.version, device.properties.capability, False)
    if refused is not None:
        with pytest.raises(EngineError, match="build it here with 'edgecount build'") as caught:
            loader.load(real_engine, tensorrt)
        print(f"\nexpected: {refused}\nsaid: {caught.value}")
        return
    network = TensorRTNetwork(device, loader.load(real_engine, tensorrt), SIZE)
    host = HostNetwork(device, network, SIZE)
    for seed in range(4):
        pictures = np.random.default_rng(seed).random((1, 3, *SIZE), np.float32)
        expected = engines.answer(engines.network(), pictures)
        np.testing.assert_allclose(host.run(pictures), expected, rtol=1e-2, atol=1e-2)
    host.close()


def test_where_tensorrt_cannot_run_another_backend_counts_and_says_why(
    tensorrt: TensorRt,
) -> None:
    if versions.refusal(tensorrt.version, properties().capability, False) is None:
        pytest.skip("TensorRT runs here")
    camera = {"name": "door", "source": "door.avi"}
    model = {"name": "head-n", "backend": "tensorrt"}
    settings = Settings.model_validate({"model": model, "cameras": [camera]})
    chosen = backends.choose(prepare(settings, lambda *_: None), lambda *_: None)
    print(f"\ncounting on {chosen.backend.name}: {chosen.fallback}")
    assert "has no kernels for this GPU" in str(chosen.fallback)
    chosen.backend.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", [False, True])
def test_a_network_is_measured(device: Device, precision: str, graph: bool) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    chosen = onnx_for("head-n", precision)
    found = measure(device, chosen.open, chosen.size, seconds=4.0, graph=graph)
    print(json.dumps(found.as_dict()))
    assert found.gpu_compute.median > 0.0
    assert found.fps > 25.0
    assert found.memory.within_limit
    assert found.fps_cv is not None
