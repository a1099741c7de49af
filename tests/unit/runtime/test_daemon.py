"""What the service says of a camera."""

import pytest
from support.onnx_models import spot_model

from edgecount.config import Settings
from edgecount.observe.metrics import Metrics
from edgecount.runtime.daemon import Service
from edgecount.runtime.plan import prepare


@pytest.mark.parametrize(("max_fps", "target"), [(None, 25.0), (10.0, 10.0), (50.0, 25.0)])
def test_a_limited_camera_is_measured_by_its_limit_everywhere(tmp_path, max_fps, target):
    onnx = spot_model(tmp_path / "spots.onnx", "yolox")
    settings = Settings.model_validate(
        {
            "model": {"path": str(onnx)},
            "cameras": [{"name": "door", "source": "clip.avi", "max_fps": max_fps}],
            "ledger": {"enabled": False},
        }
    )
    metrics = Metrics()
    service = Service(prepare(settings, metrics.stage), metrics)
    try:
        (view,) = service.views()
        labels = {"camera": "door"}
        assert view.fps_target == target
        assert metrics.registry.get_sample_value("edgecount_fps_target", labels) == target
    finally:
        service.stop()
