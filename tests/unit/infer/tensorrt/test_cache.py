"""The engine cache: whole or not at all, and the last good one stays."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_key import engine_key

from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt.cache import EngineCache, cache_folder, duration, keep_file
from edgecount.infer.tensorrt.manifest import BuildKey, Layer, Manifest
from edgecount.infer.tensorrt.profile import Profile

KEY = engine_key()
NEWER = KEY.model_copy(update={"model_sha256": "newer"})
NEWEST = KEY.model_copy(update={"model_sha256": "newest"})
OTHER_BOARD = KEY.model_copy(update={"sm": "8.7", "device": "Orin", "runtime_version": "10.3.0"})


def manifest(key: BuildKey, data: bytes) -> Manifest:
    return Manifest(
        key=key,
        engine_sha256=hashlib.sha256(data).hexdigest(),
        engine_bytes=len(data),
        built_at="2026-11-24T12:00:00+00:00",
        build_seconds=230.0,
        workspace_used=key.workspace,
        layers_of="engine",
        layers=[Layer(name="conv", kind="Convolution", precision="int8")],
        edgecount="0",
    )


def publish(cache: EngineCache, key: BuildKey, data: bytes = b"engine"):
    return cache.publish(manifest(key, data), data)


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path)


def test_an_engine_is_found_again(cache) -> None:
    assert cache.lookup(KEY).entry is None
    published = publish(cache, KEY)
    found = cache.lookup(KEY)
    assert found.reason is None
    assert found.entry == published
    assert found.entry.read() == b"engine"
    assert found.entry.manifest.precisions() == {"int8": 1}


def test_nothing_built_yet_is_told(cache) -> None:
    assert cache.lookup(KEY).reason == "head-n int8-1x3x416x416 has no engine yet: building"


def test_the_last_good_one_serves_while_a_new_one_is_wanted(cache) -> None:
    old = publish(cache, KEY)
    found = cache.lookup(NEWER)
    assert found.entry == old
    assert found.reason == "the ONNX file has changed since: rebuilding, about 4 min"


def test_another_board_cannot_use_it(cache) -> None:
    publish(cache, KEY)
    found = cache.lookup(OTHER_BOARD)
    assert found.entry is None
    assert found.reason == (
        "built with TensorRT 8.5.2 for Xavier (SM 7.2), this is TensorRT 10.3.0 on Orin (SM 8.7): "
        "rebuilding, about 4 min"
    )


def test_two_engines_are_kept_and_older_ones_go(cache) -> None:
    for key in (KEY, NEWER, NEWEST):
        publish(cache, key)
    left = {p.stem for p in cache.slot(KEY).folder.glob("*.engine")}
    assert left == {NEWER.digest, NEWEST.digest}
    assert cache.lookup(NEWER).reason is None


def test_a_rollback_holds_until_an_engine_is_built_by_hand(cache) -> None:
    publish(cache, KEY)
    publish(cache, NEWER)
    slot = cache.slot(KEY)
    assert slot.rollback().manifest.key == KEY
    held = cache.lookup(NEWER)
    assert held.entry is not None
    assert held.entry.manifest.key == KEY
    assert held.reason is None
    assert cache.lookup(OTHER_BOARD).reason is not None  # what cannot be loaded cannot be held
    cache.release(NEWER)
    released = cache.lookup(NEWER)
    assert released.entry is not None
    assert released.entry.manifest.key == NEWER
    cache.use(released.entry)
    assert slot.index().current == NEWER.digest
    assert slot.index().previous == KEY.digest


def test_a_rollback_goes_there_and_back(cache) -> None:
    publish(cache, KEY)
    publish(cache, NEWER)
    slot = cache.slot(KEY)
    assert [slot.rollback().manifest.key for _ in range(3)] == [KEY, NEWER, KEY]


def test_there_may_be_nothing_to_go_back_to(cache) -> None:
    publish(cache, KEY)
    with pytest.raises(ConfigError, match="no engine before the current one"):
        cache.slot(KEY).rollback()


def test_shapes_and_precisions_do_not_push_each_other_out(cache) -> None:
    larger = (1, 3, 640, 640)
    others = [
        KEY.model_copy(update={"precision": "fp16"}),
        KEY.model_copy(update={"profile": Profile(min=larger, opt=larger, max=larger)}),
        KEY.model_copy(update={"dla": True}),
    ]
    for key in (KEY, *others):
        publish(cache, key)
    assert all(cache.lookup(key).reason is None for key in (KEY, *others))
    names = [slot.name for slot in cache.slots("head-n")]
    assert names == [
        "fp16-1x3x416x416",
        "int8-1x3x416x416",
        "int8-1x3x416x416-dla",
        "int8-1x3x640x640",
    ]
    assert cache.slots("other") == []


@pytest.mark.parametrize("damage", ["truncate", "no manifest", "bad manifest", "no engine"])
def test_damaged_files_are_no_engine(cache, damage) -> None:
    entry = publish(cache, KEY)
    beside = entry.engine.with_suffix(".json")
    if damage == "truncate":
        entry.engine.write_bytes(b"eng")
    elif damage == "no manifest":
        beside.unlink()
    elif damage == "bad manifest":
        beside.write_text("{")
    else:
        entry.engine.unlink()
    assert cache.lookup(KEY) == (None, "head-n int8-1x3x416x416 has no engine yet: building")


def test_the_one_before_serves_where_the_current_one_is_damaged(cache) -> None:
    old = publish(cache, KEY)
    publish(cache, NEWER).engine.unlink()
    found = cache.lookup(NEWER)
    assert found.entry == old
    assert found.reason is not None


def test_changed_bytes_are_noticed_when_read(cache) -> None:
    entry = publish(cache, KEY)
    entry.engine.write_bytes(b"enginE")
    with pytest.raises(EngineError, match="is damaged"):
        entry.read()


def test_a_broken_index_names_nothing(cache) -> None:
    entry = publish(cache, KEY)
    (entry.engine.parent / "index.json").write_text("not JSON")
    assert cache.lookup(KEY).entry is None
    publish(cache, KEY)
    assert cache.lookup(KEY).entry is not None


def test_left_overs_of_dead_builds_are_swept(cache) -> None:
    first = publish(cache, KEY)
    left = first.engine.with_name("0123.engine.part")
    left.write_bytes(b"half")
    publish(cache, NEWER)
    assert not left.exists()


def test_a_full_disk_leaves_the_last_one(cache, monkeypatch) -> None:
    publish(cache, KEY)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device; the last one stays"):
        publish(cache, NEWER)
    assert cache.lookup(KEY).reason is None


@settings(max_examples=40, deadline=None)
@given(kept=st.integers(0, 8))
def test_a_power_cut_at_any_write_leaves_a_whole_engine(tmp_path_factory, kept) -> None:
    """Renames reach the disk in order: replay a publication up to any of them."""
    folder = tmp_path_factory.mktemp("cache")
    cache = EngineCache(folder)
    publish(cache, KEY, b"old engine")
    done = 0
    real = Path.replace

    def replace(self, target):
        nonlocal done
        done += 1
        if done > kept:
            raise OSError(5, "power cut")
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign]
    try:
        publish(cache, NEWER, b"new engine")
    except EngineError:
        pass
    finally:
        Path.replace = real  # type: ignore[method-assign]
    entry = EngineCache(folder).lookup(NEWER).entry
    assert entry is not None
    expected = b"new engine" if kept >= 3 else b"old engine"
    assert entry.read() == expected


def test_the_folder_follows_the_environment() -> None:
    assert cache_folder({"EDGECOUNT_CACHE": "/a", "CACHE_DIRECTORY": "/b"}) == Path("/a")
    assert cache_folder({"CACHE_DIRECTORY": "/b:/c"}) == Path("/b")
    assert cache_folder({"XDG_CACHE_HOME": "/d"}) == Path("/d/edgecount")
    assert cache_folder({}) == Path.home() / ".cache/edgecount"


def test_timings_are_kept_for_each_device(cache) -> None:
    path = cache.timing_cache(KEY)
    assert path.name == "tensorrt-8.5.2.2-sm7.2-Xavier.cache"
    assert cache.timing_cache(OTHER_BOARD) != path
    keep_file(path, b"timings")
    assert path.read_bytes() == b"timings"


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1 s"), (89, "89 s"), (230, "4 min")])
def test_durations(seconds, told) -> None:
    assert duration(seconds) == told


def test_the_manifest_is_readable_json(cache) -> None:
    entry = publish(cache, KEY)
    data = json.loads(entry.engine.with_suffix(".json").read_text())
    assert data["key"]["sm"] == "7.2"
    assert data["layers"][0]["precision"] == "int8"
