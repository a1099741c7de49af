"""What is asked of ONNX Runtime, and how its failures are told; no GPU is needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
from support.onnx_models import spot_model

from edgecount.errors import DeviceLostError, EngineError, ModelError
from edgecount.infer.cuda import ort_network
from edgecount.infer.cuda.ort_network import OrtCudaNetwork

STREAM: Any = SimpleNamespace(handle=0x5EA)


class FakeOrt:
    """ONNX Runtime with a CUDA provider whose sessions note what is asked of them."""

    __version__ = "1.31.1"

    def __init__(self) -> None:
        self.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.used = self.providers
        self.refuses_graphs = False
        self.failure: Optional[str] = None
        self.sessions: List[Any] = []
        self.bound: List[Any] = []
        self.runs = 0
        self.entries: Dict[str, str] = {}
        self.type = "tensor(float)"
        self.batch: object = "batch"

    def set_default_logger_severity(self, level: int) -> None:
        assert level == 4

    def get_available_providers(self) -> List[str]:
        return self.providers

    def SessionOptions(self) -> Any:  # noqa: N802
        return SimpleNamespace()

    def RunOptions(self) -> Any:  # noqa: N802
        return SimpleNamespace(add_run_config_entry=self.entries.__setitem__)

    def InferenceSession(self, content: Any, options: Any, providers: Any) -> Any:  # noqa: N802
        settings = providers[0][1]
        if self.refuses_graphs and settings.get("enable_cuda_graph") == "1":
            raise RuntimeError("not all nodes are on CUDA\nsecond line")
        self.sessions.append((content, settings))
        return self

    def get_providers(self) -> List[str]:
        return self.used

    def get_inputs(self) -> Any:
        return [SimpleNamespace(name="images", type=self.type, shape=[self.batch, 3, "h", "w"])]

    def get_outputs(self) -> Any:
        return [SimpleNamespace(name="output", type="tensor(float)", shape=["b", 5, "cells"])]

    def run(self, names: Any, feed: Any, options: Any) -> Any:
        return [np.zeros((1, 5, 84), np.float32)]

    def io_binding(self) -> Any:
        return SimpleNamespace(
            bind_input=lambda *a: self.bound.append(("in", *a)),
            bind_output=lambda *a: self.bound.append(("out", *a)),
        )

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self.failure is not None:
            raise RuntimeError(self.failure)
        self.runs += 1


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    fake = FakeOrt()
    monkeypatch.setattr(ort_network, "onnxruntime", fake)
    return fake


def network(path: Path = Path("m.onnx"), precision: str = "fp32") -> OrtCudaNetwork:
    return OrtCudaNetwork(
        path, stream=STREAM, size=(64, 32), precision=precision, memory_bytes=1000, device=1
    )


def test_the_session_uses_our_stream_and_our_limit(ort: FakeOrt) -> None:
    network()
    assert ort.sessions[0][1] == {
        "device_id": "1",
        "user_compute_stream": str(0x5EA),
        "gpu_mem_limit": "1000",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": "0",
        "enable_cuda_graph": "1",
    }
    assert ort.entries == {
        "gpu_graph_id": "-1",
        "disable_synchronize_execution_providers": "1",
    }


def test_each_batch_size_has_a_session_of_its_own(ort: FakeOrt) -> None:
    made = network()
    for batch in (1, 4, 4, 8, 1):
        made.enqueue(STREAM, batch, 16, 99, None)
    assert len(ort.sessions) == 3


def test_memory_is_bound_once_for_each_combination(ort: FakeOrt) -> None:
    made = network()
    for batch, source in ((2, 16), (2, 16), (4, 16), (2, 32)):
        made.enqueue(STREAM, batch, source, 99, None)
    assert ort.runs == 4
    assert [b[0] for b in ort.bound] == ["in", "out"] * 3
    assert ort.bound[0] == ("in", "images", "cuda", 1, np.float32, [2, 3, 32, 64], 16)
    assert ort.bound[1] == ("out", "output", "cuda", 1, np.float32, [2, 5, 84], 99)
    assert made.output_shape(8) == (8, 5, 84)


@pytest.mark.parametrize(("batch", "most"), [("batch", None), (1, 1), (0, None)])
def test_a_fixed_batch_is_the_largest(ort: FakeOrt, batch: object, most: Optional[int]) -> None:
    ort.batch = batch
    assert network().max_batch == most


def test_without_the_provider_the_right_package_is_named(ort: FakeOrt) -> None:
    ort.providers = ["CPUExecutionProvider"]
    with pytest.raises(EngineError, match="replace the package onnxruntime by onnxruntime-gpu"):
        network()


def test_a_provider_that_does_not_load_is_no_silent_fallback(ort: FakeOrt) -> None:
    ort.used = ["CPUExecutionProvider"]
    with pytest.raises(EngineError, match="cannot use CUDA here"):
        network()


def test_a_network_that_cannot_be_a_graph_runs_without(ort: FakeOrt) -> None:
    ort.refuses_graphs = True
    network()
    assert "enable_cuda_graph" not in ort.sessions[0][1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", DeviceLostError),
        ("CUDA failure 2: out of memory ; GPU=0", EngineError),
        ("Got invalid dimensions for input", EngineError),
    ],
)
def test_failures_are_told_apart(ort: FakeOrt, text: str, kind: type) -> None:
    made = network()
    ort.failure = f"{text}\nat line 5"
    with pytest.raises(EngineError, match=text.split(";")[0].strip()) as caught:
        made.enqueue(STREAM, 1, 16, 32, None)
    assert type(caught.value) is kind


def test_fp16_halves_the_file_but_not_its_output(ort: FakeOrt, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    ort.type = "tensor(float16)"
    made = network(spot_model(tmp_path / "spots.onnx"), "fp16")
    assert (made.input_dtype, made.output_dtype) == (np.float16, np.float32)
    graph = onnx.load_from_string(ort.sessions[0][0]).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_file_that_is_no_model_cannot_be_halved(ort: FakeOrt, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be converted to FP16"):
        network(path, "fp16")


def test_closing_twice_is_harmless(ort: FakeOrt) -> None:
    made = network()
    made.close()
    made.close()
