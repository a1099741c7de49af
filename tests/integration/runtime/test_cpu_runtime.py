"""OpenVINO beside ONNX Runtime: the same model, the same pictures, the same heads."""

import os
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgecount.cli.main import cli
from edgecount.config import ModelSettings
from edgecount.infer import openvino
from edgecount.infer.cpu import CpuBackend
from edgecount.infer.runtimes import workers
from edgecount.records import Detections
from edgecount.runtime.plan import Model, load_model

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(openvino.installed_version() is None, reason="OpenVINO is not installed"),
]
CLIP = os.environ.get("EDGECOUNT_VTEST", "")


def loaded(runtime: str, **settings: Any) -> Model:
    given: Dict[str, Any] = {"name": "head-n", "cpu_runtime": runtime, "backend": "cpu"}
    model = load_model(ModelSettings.model_validate({**given, **settings}), lambda _s, _t: None)
    assert model.runtime == runtime
    return model


def frames(count: int, step: int) -> List["np.ndarray"]:
    clip = cv2.VideoCapture(CLIP)
    found = []
    for index in range(count * step):
        ok, frame = clip.read()
        assert ok
        if index % step == 0:
            found.append(frame)
    return found


def assert_same(one: Detections, other: Detections) -> None:
    assert len(one.scores) == len(other.scores) > 0
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.02)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


@pytest.mark.skipif(not Path(CLIP).is_file(), reason="EDGECOUNT_VTEST names no clip")
def test_in_fp32_they_find_the_same_heads() -> None:
    models = [loaded(name, precision="fp32") for name in ("onnxruntime", "openvino")]
    for frame in frames(8, 50):
        one, other = (model.detector.detect([frame])[0] for model in models)
        assert_same(one, other)


@pytest.mark.skipif(not Path(CLIP).is_file(), reason="EDGECOUNT_VTEST names no clip")
def test_int8_finds_nearly_the_same_heads() -> None:
    exact, quantised = loaded("onnxruntime", precision="fp32"), loaded("openvino", precision="int8")
    assert quantised.precision == "int8"
    pairs = [
        tuple(len(m.detector.detect([frame])[0].scores) for m in (exact, quantised))
        for frame in frames(8, 50)
    ]
    wanted = sum(one for one, _ in pairs)
    assert sum(abs(one - other) for one, other in pairs) <= 0.25 * wanted


def test_the_backend_names_its_runtime() -> None:
    model = loaded("openvino", precision="fp32", threads=2)
    backend = CpuBackend(model.detector, {}, workers=workers(model.settings), runtime=model.runtime)
    assert backend.name == "openvino-cpu"
    backend.close()


def test_check_says_what_runs(tmp_path: Path) -> None:
    path = tmp_path / "edgecount.yaml"
    path.write_text(
        "model: {name: head-n, cpu_runtime: openvino, precision: fp32, backend: cpu}\n"
        f"cameras: [{{name: door, source: {tmp_path / 'clip.avi'}}}]\n"
        "ledger: {enabled: false}\n"
    )
    result = CliRunner().invoke(cli, ["check", "-c", str(path)])
    assert result.exit_code == 0, result.output
    assert "on a CPU: fp32 in openvino" in result.output
