import json
from pathlib import Path
from time import sleep
from typing import Dict, Tuple

import numpy as np
import pytest

from edgecount.errors import ModelError
from edgecount.infer.cpu_features import CpuFeatures
from edgecount.infer.precision import METADATA_KEY, choose

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


class Opener:
    def __init__(self, fp32: float, int8: float, metadata: Dict[str, str]) -> None:
        self._seconds = {False: fp32, True: int8}
        self._metadata = metadata
        self.opened = 0

    def __call__(self, path: Path) -> Tuple[Timed, Dict[str, str]]:
        self.opened += 1
        return Timed(self._seconds[".int8." in path.name]), self._metadata


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m.int8.onnx").write_bytes(b"int8")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"fp32")
    return path


def chosen(model: Path, opener: Opener, features: CpuFeatures = VNNI, asked: str = "auto"):
    return choose(model, asked, SIZE, opener, cache=model.parent / "cache", features=features)


def test_int8_counts_where_it_is_faster(model: Path) -> None:
    choice = chosen(model, Opener(0.02, 0.002, WITHIN))
    assert (choice.path.name, choice.precision) == ("m.int8.onnx", "int8")
    assert choice.fp32_ms is not None
    assert choice.int8_ms is not None
    assert choice.fp32_ms > choice.int8_ms


def test_fp32_counts_where_it_is_faster(model: Path) -> None:
    choice = chosen(model, Opener(0.002, 0.02, WITHIN))
    assert (choice.path, choice.precision) == (model, "fp32")
    assert "INT8 takes" in choice.reason


def test_it_is_measured_once(model: Path) -> None:
    first, second = Opener(0.01, 0.001, WITHIN), Opener(0.01, 0.001, WITHIN)
    assert chosen(model, first) == chosen(model, second)
    assert (first.opened, second.opened) == (2, 0)


def test_another_file_is_measured_anew(model: Path) -> None:
    chosen(model, Opener(0.01, 0.001, WITHIN))
    (model.parent / "m.int8.onnx").write_bytes(b"new")
    again = Opener(0.01, 0.001, WITHIN)
    chosen(model, again)
    assert again.opened == 2


@pytest.mark.parametrize(
    "metadata",
    [{}, {METADATA_KEY: "x"}, {METADATA_KEY: json.dumps({"loss": {"within": False}})}],
)
def test_a_file_over_its_budget_does_not_count(model: Path, metadata: Dict[str, str]) -> None:
    choice = chosen(model, Opener(0.01, 0.001, metadata))
    assert choice.precision == "fp32"
    assert "budget" in choice.reason


def test_a_cpu_without_int8_instructions_is_not_even_asked(model: Path) -> None:
    opener = Opener(0.01, 0.001, WITHIN)
    choice = chosen(model, opener, AVX2)
    assert (choice.precision, opener.opened) == ("fp32", 0)
    assert "saturate" in choice.reason


def test_what_is_asked_for_counts(model: Path) -> None:
    assert chosen(model, Opener(0, 1, {}), AVX2, "int8").precision == "int8"
    assert chosen(model, Opener(1, 0, WITHIN), VNNI, "fp32").path == model
    assert chosen(model, Opener(1, 0, WITHIN), VNNI, "fp16").precision == "fp32"


def test_int8_that_is_not_there(model: Path) -> None:
    (model.parent / "m.int8.onnx").unlink()
    assert chosen(model, Opener(0, 0, {})).reason == "there is no INT8 file"
    with pytest.raises(ModelError, match=r"m\.int8\.onnx"):
        chosen(model, Opener(0, 0, {}), asked="int8")
