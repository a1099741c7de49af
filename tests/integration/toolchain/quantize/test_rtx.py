"""The very files that the Q/DQ writer writes, parsed and built by the real TensorRT-RTX."""

from pathlib import Path
from typing import Dict

import numpy as np
import onnx
import pytest
from support import conv_models

from edgecount.toolchain.quantize.precision import PRESETS
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.quantize.watched import float_tensors

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
pytestmark = pytest.mark.integration

SIZE = 128
HEAD_N = Path(__file__).parents[4] / "engines/head-n/head-n.onnx"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Dict[str, onnx.ModelProto]:
    path = conv_models.yolov8_like(tmp_path_factory.mktemp("yolov8") / "people.onnx")
    return {"head-n": onnx.load(str(HEAD_N)), "yolov8": onnx.load(str(path))}


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("model", ["head-n", "yolov8"])
def test_a_written_file_builds(models, model: str, preset: str) -> None:
    if model == "yolov8" and "neck" in preset:
        pytest.skip("this small model has no neck")
    plain = models[model]
    ranges = dict.fromkeys(float_tensors(plain), 8.0)
    table = CalibrationTable("", "minmax", 1, "", {}, ranges)
    written = write_qdq(plain, table, PRESETS[preset])
    assert built(written).nbytes > 10_000


def built(model: onnx.ModelProto) -> memoryview:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parsed = parser.parse(model.SerializeToString())
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shape = (1, 3, SIZE, SIZE)
    declared = tuple(network.get_input(0).shape)
    wanted = tuple(np.where(np.asarray(declared) < 0, shape, declared).tolist())
    profile.set_shape(network.get_input(0).name, wanted, wanted, wanted)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, "TensorRT-RTX refused to build"
    return memoryview(plan)


@pytest.mark.parametrize("name", ["head-n", "head-s"])
def test_the_shipped_int8_file_builds(name: str) -> None:
    path = HEAD_N.parents[1] / name / f"{name}.int8.onnx"
    assert built(onnx.load(str(path))).nbytes > 10_000
