import json
from pathlib import Path
from time import sleep
from typing import Dict, Optional, Tuple

import numpy as np
import pytest
from support.onnx_graphs import Builder

from edgecount.errors import ModelError
from edgecount.infer.cpu_features import CpuFeatures
from edgecount.infer.precision import METADATA_KEY, Choice, Runtime, choose

VNNI = CpuFeatures("fast", frozenset({"avx2", "avx512_vnni"}))
AVX2 = CpuFeatures("slow", frozenset({"avx2"}))
WITHIN = {METADATA_KEY: json.dumps({"loss": {"within": True}})}
SIZE = (64, 32)


class Timed:
    input_shape: Tuple[object, ...] = ()
    output_shape: Tuple[object, ...] = ()

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert batch.shape == (1, 3, 32, 64)
        sleep(self._seconds)
        return batch


class Library:
    """A runtime whose networks take a given time; None is one that does not open."""

    def __init__(
        self, name: str, fp32: Optional[float], int8: Optional[float], version: str = "1"
    ) -> None:
        self._name, self._version = name, version
        self._seconds = {False: fp32, True: int8}
        self.opened = 0

    @property
    def runtime(self) -> Runtime:
        return Runtime(self._name, self._version, self._open)

    def _open(self, path: Path) -> Timed:
        self.opened += 1
        seconds = self._seconds[".int8." in path.name]
        if seconds is None:
            raise ModelError(f"{self._name} cannot load {path.name}")
        return Timed(seconds)


def write(path: Path, metadata: Dict[str, str], weight: float = 0.0) -> None:
    """An ONNX file that ONNX Runtime reads."""
    b = Builder()
    b.constants["w"] = np.array([weight], np.float32)
    model = b.model(b.node("Add", ["x", "w"], "y"), metadata=metadata)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    write(path, {})
    write(tmp_path / "m.int8.onnx", WITHIN)
    return path


def chosen(
    model: Path, *libraries: Library, features: CpuFeatures = VNNI, asked: str = "auto"
) -> Choice:
    runtimes = [library.runtime for library in libraries]
    cache = model.parent / "cache"
    return choose(model, asked, SIZE, runtimes, cache=cache, features=features)


def what(choice: Choice) -> Tuple[str, str]:
    assert (".int8." in choice.path.name) == (choice.precision == "int8")
    return choice.runtime.name, choice.precision


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ((0.02, 0.002), (0.02, 0.02), ("one", "int8")),
        ((0.002, 0.02), (0.02, 0.02), ("one", "fp32")),
        ((0.02, 0.02), (0.02, 0.002), ("other", "int8")),
        ((0.02, 0.02), (0.002, 0.02), ("other", "fp32")),
    ],
)
def test_the_fastest_counts(
    model: Path,
    one: Tuple[float, float],
    other: Tuple[float, float],
    wanted: Tuple[str, str],
) -> None:
    choice = chosen(model, Library("one", *one), Library("other", *other))
    assert what(choice) == wanted
    assert set(choice.times_ms) == {"one fp32", "other fp32", "one int8", "other int8"}
    assert min(choice.times_ms, key=lambda k: choice.times_ms[k]) == " ".join(wanted)
    assert all(label in choice.reason for label in choice.times_ms)


def test_what_is_hardly_faster_does_not_count(model: Path) -> None:
    keep = model.parent / "cache"
    chosen(model, Library("one", 0.001, 0.001), Library("other", 0.001, 0.001))
    entry = next(keep.iterdir())
    labels = ("one fp32", "other fp32", "one int8", "other int8")
    entry.write_text(json.dumps({"times_ms": dict(zip(labels, (10.0, 9.7, 9.6, 9.6)))}))
    assert what(chosen(model, Library("one", 0, 0), Library("other", 0, 0))) == ("one", "fp32")


def test_it_is_measured_once(model: Path) -> None:
    first, second = Library("one", 0.01, 0.001), Library("one", 0.01, 0.001)
    assert what(chosen(model, first)) == what(chosen(model, second))
    assert (first.opened, second.opened) == (2, 0)


def test_one_way_is_not_measured_at_all(model: Path) -> None:
    only = Library("one", 0.01, 0.001)
    assert what(chosen(model, only, asked="fp32")) == ("one", "fp32")
    assert only.opened == 0


@pytest.mark.parametrize(
    "kept", ["", "{}", "[]", '{"times_ms": {"one fp32": 1}}', '{"times_ms": 1}']
)
def test_a_broken_cache_is_measured_anew(model: Path, kept: str) -> None:
    chosen(model, Library("one", 0.01, 0.001))
    next((model.parent / "cache").iterdir()).write_text(kept)
    again = Library("one", 0.01, 0.001)
    assert what(chosen(model, again)) == ("one", "int8")
    assert again.opened == 2


def test_another_file_and_another_version_are_measured_anew(model: Path) -> None:
    chosen(model, Library("one", 0.01, 0.001))
    newer = Library("one", 0.01, 0.001, version="2")
    chosen(model, newer)
    write(model.with_name("m.int8.onnx"), WITHIN, weight=1.0)
    again = Library("one", 0.01, 0.001)
    chosen(model, again)
    assert (newer.opened, again.opened) == (2, 2)


def test_a_runtime_that_cannot_load_a_file_is_left_out_and_tried_again(model: Path) -> None:
    broken = Library("other", None, None)
    choice = chosen(model, Library("one", 0.01, 0.001), broken)
    assert what(choice) == ("one", "int8")
    assert "other cannot load m.onnx" in choice.reason
    chosen(model, Library("one", 0.01, 0.001), broken)
    assert broken.opened == 4


def test_where_nothing_runs_the_first_reason_is_raised(model: Path) -> None:
    with pytest.raises(ModelError, match=r"one cannot load m\.onnx"):
        chosen(model, Library("one", None, None), Library("other", None, None))


@pytest.mark.parametrize(
    "metadata",
    [{}, {METADATA_KEY: "x"}, {METADATA_KEY: json.dumps({"loss": {"within": False}})}],
)
def test_a_file_over_its_budget_does_not_count(model: Path, metadata: Dict[str, str]) -> None:
    write(model.with_name("m.int8.onnx"), metadata)
    choice = chosen(model, Library("one", 0.01, 0.001))
    assert choice.precision == "fp32"
    assert "budget" in choice.reason


def test_a_file_that_is_no_model_does_not_count(model: Path) -> None:
    model.with_name("m.int8.onnx").write_bytes(b"int8")
    choice = chosen(model, Library("one", 0.01, 0.001))
    assert choice.precision == "fp32"
    assert "cannot be used" in choice.reason


def test_a_cpu_without_int8_instructions_counts_in_fp32(model: Path) -> None:
    library = Library("one", 0.01, 0.001)
    choice = chosen(model, library, features=AVX2)
    assert (choice.precision, library.opened) == ("fp32", 0)
    assert "saturate" in choice.reason


def test_there_the_runtimes_are_still_measured(model: Path) -> None:
    choice = chosen(model, Library("one", 0.01, 0), Library("other", 0.001, 0), features=AVX2)
    assert what(choice) == ("other", "fp32")
    assert set(choice.times_ms) == {"one fp32", "other fp32"}


def test_what_is_asked_for_counts(model: Path) -> None:
    slow_int8, slow_fp32 = Library("one", 0, 1), Library("one", 1, 0)
    assert what(chosen(model, slow_int8, features=AVX2, asked="int8")) == ("one", "int8")
    assert what(chosen(model, slow_fp32, asked="fp32")) == ("one", "fp32")
    assert what(chosen(model, slow_fp32, asked="fp16")) == ("one", "fp32")


def test_int8_that_is_asked_for_runs_where_it_is_faster(model: Path) -> None:
    choice = chosen(model, Library("one", 0, 0.01), Library("other", 0, 0.001), asked="int8")
    assert what(choice) == ("other", "int8")


def test_int8_that_is_not_there(model: Path) -> None:
    model.with_name("m.int8.onnx").unlink()
    assert chosen(model, Library("one", 0, 0)).reason == "there is no INT8 file"
    with pytest.raises(ModelError, match=r"m\.int8\.onnx"):
        chosen(model, Library("one", 0, 0), asked="int8")
