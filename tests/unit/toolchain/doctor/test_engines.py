"""The doctor's look at the engine cache."""

import hashlib
import os

import pytest
from support.engine_key import engine_key

from edgecount.errors import EngineError
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey, Manifest
from edgecount.infer.tensorrt.versions import Version
from edgecount.toolchain.doctor.engines import examine

XAVIER = DeviceFacts("Xavier", (7, 2), "35.4.1", "11.4", True)
ORIN = DeviceFacts("Orin", (8, 7), "36.4.3", "12.6", True)
KEY = engine_key(runtime_version="8.5.2", workspace=1)


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    cache = EngineCache(tmp_path)
    for key in (KEY.model_copy(update={"model_sha256": "old"}), KEY):
        cache.publish(_manifest(key), b"engine")
    return cache


def _manifest(key: BuildKey) -> Manifest:
    return Manifest(
        key=key,
        engine_sha256=hashlib.sha256(b"engine").hexdigest(),
        engine_bytes=6,
        built_at="2026-11-24T12:00:00+00:00",
        build_seconds=1.0,
        workspace_used=1,
        layers_of="engine",
        edgecount="0",
    )


def look(folder, facts=XAVIER, version="8.5.2"):
    return list(examine(folder, lambda product: Version.parse(product, version), lambda: facts))


def test_nothing_built_is_fine(tmp_path) -> None:
    (finding,) = look(tmp_path / "not" / "there")
    assert finding.state == "ok"
    assert "empty" in finding.detail


def test_an_engine_of_this_machine_is_fine(cache, tmp_path) -> None:
    (finding,) = look(tmp_path)
    assert finding.state == "ok"
    assert finding.detail == "head-n int8-1x3x416x416: TensorRT 8.5.2, built 2026-11-24"


def test_a_rollback_is_shown(cache, tmp_path) -> None:
    cache.slot(KEY).rollback()
    (finding,) = look(tmp_path)
    assert finding.detail.endswith("held by a rollback")


def test_an_engine_of_another_machine_is_a_warning_with_a_remedy(cache, tmp_path) -> None:
    (finding,) = look(tmp_path, ORIN, "10.3.0")
    assert finding.state == "warn"
    assert finding.detail == (
        "head-n int8-1x3x416x416: built with TensorRT 8.5.2 for Xavier (SM 7.2), this is TensorRT "
        "10.3.0 on Orin (SM 8.7); built with driver 35.4.1, this is 36.4.3"
    )
    assert finding.remedy == "edgecount build head-n"


def test_a_new_driver_only_means_a_rebuild(cache, tmp_path) -> None:
    newer = DeviceFacts("Xavier", (7, 2), "35.6.0", "11.4", True)
    (finding,) = look(tmp_path, newer)
    assert finding.state == "ok"
    assert finding.detail.endswith("this is 35.6.0: the service builds it anew")


def test_a_damaged_engine_is_a_warning(cache, tmp_path) -> None:
    next(tmp_path.rglob(f"{KEY.digest}.engine")).unlink()
    (finding,) = look(tmp_path)
    assert (finding.state, "damaged" in finding.detail) == ("warn", True)


def test_a_tensorrt_that_is_gone_is_told(cache, tmp_path) -> None:
    def gone(_product):
        raise EngineError("this Python has no TensorRT")

    (finding,) = examine(tmp_path, gone, lambda: XAVIER)
    assert finding.state == "warn"
    assert "this Python has no TensorRT" in finding.detail


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    first, _ = look(tmp_path)
    assert first.state == "warn"
    assert "chown" in first.remedy
