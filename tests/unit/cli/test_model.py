"""``edgecount model``."""

import hashlib
import json

import pytest
from click.testing import CliRunner
from support.engine_key import engine_key

from edgecount.cli.main import cli
from edgecount.errors import ConfigError
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.manifest import Manifest

KEY = engine_key(model_sha256="older older older", runtime_version="8.5.2", workspace=1)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> EngineCache:
    monkeypatch.setenv("EDGECOUNT_CACHE", str(tmp_path))
    return EngineCache(tmp_path)


def publish(cache: EngineCache, **changes: object) -> None:
    manifest = Manifest(
        key=KEY.model_copy(update=changes),
        engine_sha256=hashlib.sha256(b"engine").hexdigest(),
        engine_bytes=6,
        built_at="2026-11-24T12:00:00+00:00",
        build_seconds=230.0,
        workspace_used=1,
        layers_of="engine",
        edgecount="0",
    )
    cache.publish(manifest, b"engine")


def run(*arguments: str):
    return CliRunner().invoke(cli, ["model", *arguments])


def test_an_empty_cache_is_told(cache) -> None:
    assert "no engine is built" in run("list").stdout
    assert json.loads(run("list", "--json").stdout) == []


def test_engines_are_listed_with_their_state(cache) -> None:
    publish(cache)
    publish(cache, model_sha256="newer")
    rows = json.loads(run("list", "--json").stdout)
    assert [(r["model"], r["slot"], r["state"], r["held"]) for r in rows] == [
        ("head-n", "int8-1x3x416x416", "current", False),
        ("head-n", "int8-1x3x416x416", "previous", False),
    ]
    assert rows[0]["device"] == "Xavier (SM 7.2)"
    assert "TensorRT 8.5.2" in run("list", "head-n").stdout


def test_a_rollback_goes_back_and_is_shown_as_held(cache) -> None:
    publish(cache)
    publish(cache, model_sha256="newer")
    result = run("rollback", "head-n")
    assert result.exit_code == 0
    assert "from the ONNX file older older" in result.stdout
    assert json.loads(run("list", "--json").stdout)[0]["held"] is True
    assert "current, held" in run("list").stdout


def test_which_engine_must_be_clear(cache) -> None:
    with pytest.raises(ConfigError, match="no engine of 'head-n' is built"):
        raise run("rollback", "head-n").exception
    publish(cache)
    publish(cache, model_sha256="newer")
    publish(cache, precision="fp16")
    publish(cache, precision="fp16", model_sha256="newer")
    with pytest.raises(ConfigError, match="--slot: fp16-1x3x416x416, int8-1x3x416x416"):
        raise run("rollback", "head-n").exception
    assert run("rollback", "head-n", "--slot", "fp16-1x3x416x416").exit_code == 0


def test_the_only_one_that_has_a_previous_engine_need_not_be_named(cache) -> None:
    publish(cache, precision="fp16")
    publish(cache)
    with pytest.raises(ConfigError, match="int8-1x3x416x416 has no engine before the current one"):
        raise run("rollback", "head-n", "--slot", "int8-1x3x416x416").exception
    with pytest.raises(ConfigError, match="no engine of 'head-n' has one before it"):
        raise run("rollback", "head-n").exception
    publish(cache, model_sha256="newer")
    assert "head-n int8-1x3x416x416 is now" in run("rollback", "head-n").stdout


def test_a_slot_that_is_not_there_is_told_with_those_that_are(cache) -> None:
    publish(cache)
    with pytest.raises(ConfigError, match="no slot 'fp16': there is int8-1x3x416x416"):
        raise run("rollback", "head-n", "--slot", "fp16").exception


def test_a_path_or_a_pattern_is_no_models_name(cache) -> None:
    publish(cache)
    for name in ("/head-n", "*", "head-*"):
        assert json.loads(run("list", name, "--json").stdout) == []
        with pytest.raises(ConfigError, match="no engine of"):
            raise run("rollback", name).exception
