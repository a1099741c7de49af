"""The version matrix."""

import re
from types import SimpleNamespace

import pytest

from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt import versions
from edgecount.infer.tensorrt.versions import Version, features_of, find, has_int8, refusal


@pytest.mark.parametrize(
    ("text", "weak", "strong", "batch", "pools", "monitor", "names", "bindings"),
    [
        ("8.2.1.8", True, False, True, False, False, False, True),
        ("8.4.3.1", True, False, True, True, False, False, True),
        ("8.5.2.2", True, False, True, True, False, True, True),
        ("8.6.2.3", True, False, True, True, False, True, True),
        ("10.3.0", True, True, False, True, True, True, False),
        ("10.16.1", True, True, False, True, True, True, False),
        ("11.4.1.106", False, True, False, True, True, True, False),
    ],
)
def test_each_version_has_what_its_release_has(
    text, weak, strong, batch, pools, monitor, names, bindings
) -> None:
    features = features_of(Version.parse("tensorrt", text))
    assert (features.weakly_typed, features.strongly_typed) == (weak, strong)
    assert (features.explicit_batch, features.memory_pools) == (batch, pools)
    assert (features.progress_monitor, features.tensor_names) == (monitor, names)
    assert features.bindings == bindings
    assert features.plugins


def test_rtx_is_like_the_newest_without_plugins_and_timings() -> None:
    features = features_of(Version.parse("tensorrt_rtx", "1.7.1.116"))
    assert features.strongly_typed
    assert not features.weakly_typed
    assert not features.plugins
    assert not features.timing_cache


def test_an_old_one_is_refused() -> None:
    with pytest.raises(EngineError, match=r"TensorRT 7\.1\.3 is too old.*8\.2"):
        features_of(Version.parse("tensorrt", "7.1.3"))


def test_a_version_is_read_and_shown() -> None:
    version = Version.parse("tensorrt", "10.0.0b6")
    assert version.numbers == (10, 0, 0)
    assert Version.parse("tensorrt", "8.5.2.2").label == "TensorRT 8.5.2"
    assert Version.parse("tensorrt_rtx", "1.7.1.116").label == "TensorRT-RTX 1.7.1"
    with pytest.raises(EngineError, match="version as 'dev'"):
        Version.parse("tensorrt", "dev")


def _load(there):
    def load(name):
        if name not in there:
            raise ModuleNotFoundError(name)
        if isinstance(there[name], Exception):
            raise there[name]
        return SimpleNamespace(__version__=there[name])

    return load


def test_tensorrt_is_taken_before_rtx_unless_asked() -> None:
    both = _load({"tensorrt": "8.5.2.2", "tensorrt_rtx": "1.7.1"})
    assert find(load=both).version.product == "tensorrt"
    assert find("tensorrt_rtx", load=both).version.product == "tensorrt_rtx"
    assert find(load=_load({"tensorrt_rtx": "1.7.1"})).version.product == "tensorrt_rtx"


def test_a_missing_one_says_where_it_comes_from() -> None:
    with pytest.raises(EngineError, match=r"no TensorRT or TensorRT-RTX.*python3-libnvinfer"):
        find(load=_load({}))
    with pytest.raises(EngineError, match="no TensorRT-RTX"):
        find("tensorrt_rtx", load=_load({"tensorrt": "8.5.2"}))
    with pytest.raises(ConfigError, match="choose one of tensorrt, tensorrt_rtx"):
        find("trt", load=_load({}))


def test_one_that_does_not_load_is_told_and_the_other_is_tried() -> None:
    broken = OSError("libnvinfer.so.8: cannot open shared object file")
    with pytest.raises(EngineError, match="installed but does not load: libnvinfer"):
        find(load=_load({"tensorrt": broken}))
    found = find(load=_load({"tensorrt": broken, "tensorrt_rtx": "1.7.1"}))
    assert found.version.product == "tensorrt_rtx"


@pytest.mark.parametrize(
    ("capability", "has"),
    [((5, 3), False), ((6, 0), False), ((6, 1), True), ((6, 2), False), ((7, 2), True),
     ((8, 7), True), ((11, 0), True)],
)  # fmt: skip
def test_int8_units(capability, has) -> None:
    assert has_int8(capability) is has


@pytest.mark.parametrize(
    ("product", "version", "capability", "jetson", "told"),
    [
        ("tensorrt_rtx", "1.7.1", (9, 0), False, r"SM 9\.0.*use TensorRT here"),
        ("tensorrt_rtx", "1.7.1", (8, 9), False, None),
        ("tensorrt_rtx", "1.7.1", (12, 1), False, None),
        ("tensorrt_rtx", "1.7.1", None, False, None),
        ("tensorrt", "10.13.0", (8, 7), True, r"use TensorRT 10\.16"),
        ("tensorrt", "10.16.0", (8, 7), True, None),
        ("tensorrt", "11.2.0", (11, 0), True, "does not support Jetson"),
        ("tensorrt", "11.2.0", (9, 0), False, None),
        ("tensorrt", "11.4.1", (8, 7), True, None),
        ("tensorrt", "8.2.1", (5, 3), True, None),
    ],
)
def test_refusals(product, version, capability, jetson, told) -> None:
    reason = refusal(Version.parse(product, version), capability, jetson)
    if told is None:
        assert reason is None
    else:
        assert reason is not None
        assert re.search(told, reason)


def test_the_newest_opset_is_known_for_old_versions_only() -> None:
    newest = [
        versions.newest_opset(Version.parse("tensorrt", v)) for v in ("8.2.1", "8.6.2", "10.3.0")
    ]
    assert newest == [13, 17, None]
    assert versions.newest_opset(Version.parse("tensorrt_rtx", "1.7.1")) is None


@pytest.mark.parametrize(
    ("product", "text", "has"),
    [
        ("tensorrt", "8.2.1", True),
        ("tensorrt", "10.3.0", True),
        ("tensorrt", "10.7.0", True),
        ("tensorrt", "10.8.0", False),
        ("tensorrt", "10.16.1", False),
        ("tensorrt", "11.4.0", False),
        ("tensorrt", "11.4.1", True),
        ("tensorrt_rtx", "1.7.1", False),
    ],
)
def test_which_versions_run_on_a_dla(product, text, has) -> None:
    assert Version.parse(product, text).has_dla is has
