import json
from pathlib import Path
from typing import List, Optional

import onnx
import pytest
from support import onnx_models
from support.onnx_models import Box, spot_model, write_recipe

from edgecount.config import CameraSettings, Settings
from edgecount.infer import cpu_features, openvino
from edgecount.infer.cpu_features import CpuFeatures
from edgecount.infer.precision import CACHE_VARIABLE, METADATA_KEY
from edgecount.runtime.plan import default_settings
from edgecount.toolchain.doctor import model as models
from edgecount.toolchain.doctor.finding import Finding

VNNI = CpuFeatures("fast", frozenset({"avx2", "avx512_vnni"}))
AVX2 = CpuFeatures("slow", frozenset({"avx2"}))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A model whose INT8 file is within its budget."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    names = {"names": "{0: 'head'}"}
    path = onnx_models.constant_model(
        tmp_path / "m.onnx", "yolov8", [Box(1, 1, 9, 9)], metadata=names
    )
    quantised = onnx.load(str(path))
    about = {**names, METADATA_KEY: json.dumps({"loss": {"within": True}})}
    onnx.helper.set_model_props(quantised, about)
    onnx.save(quantised, str(tmp_path / "m.int8.onnx"))
    return default_settings("clip.avi", model=str(path))


def findings(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    features: CpuFeatures,
    version: Optional[str],
) -> List[Finding]:
    monkeypatch.setattr(cpu_features, "read", lambda: features)
    monkeypatch.setattr(openvino, "installed_version", lambda: version)
    return list(models.examine(settings))


def test_what_runs_the_model_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    speed, runtime = findings(settings, monkeypatch, AVX2, None)
    assert (speed.check, speed.state) == ("model", "ok")
    assert "fp32 in onnxruntime" in speed.detail
    assert (runtime.check, runtime.state) == ("cpu runtime", "ok")
    assert "saturate" in runtime.detail


def test_openvino_is_recommended_where_it_may_help(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = findings(settings, monkeypatch, VNNI, None)[1]
    assert runtime.state == "warn"
    assert "edgecount[openvino]" in runtime.remedy


def test_not_without_an_int8_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.model.path is not None
    settings.model.path.with_name("m.int8.onnx").unlink()
    assert findings(settings, monkeypatch, VNNI, None)[1].state == "ok"


@pytest.mark.skipif(openvino.installed_version() is None, reason="OpenVINO is not installed")
def test_its_version_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    version = openvino.installed_version()
    runtime = findings(settings, monkeypatch, VNNI, version)[1]
    assert runtime.state == "ok"
    assert f"OpenVINO {version}" in runtime.detail


def test_a_model_that_cannot_be_loaded_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.model.path is not None
    settings.model.path.write_bytes(b"no model")
    only = findings(settings, monkeypatch, VNNI, None)
    assert [(f.check, f.state) for f in only] == [("model", "fail")]


@pytest.mark.parametrize(
    ("more", "pictures"),
    [({}, 25), ({"max_fps": 10}, 10), ({"tiles": "2x2"}, 100), ({"tiles": "2x2", "fps": 5}, 20)],
)
def test_each_tile_is_a_picture_for_the_network(more, pictures):
    camera = CameraSettings(name="door", source="usb:0", **more)
    assert models.pictures_per_second(camera) == pictures


def test_a_model_that_does_not_load_tells_of_no_head_size(tmp_path):
    cameras = [{"name": "door", "source": "usb:0"}]
    gone = Settings.model_validate({"model": {"path": tmp_path / "no.onnx"}, "cameras": cameras})
    assert models.sight_of(gone) is None
    path = spot_model(tmp_path / "spots.onnx", "yolox")
    recipe = write_recipe(path, "yolox", width=416, height=416)
    recipe.write_text(recipe.read_text() + "smallest_head_px: 9\n")
    there = Settings.model_validate({"model": {"path": path}, "cameras": cameras})
    sight = models.sight_of(there)
    assert sight is not None
    assert sight.smallest == 9
