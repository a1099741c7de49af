"""What is asked of TensorRT's builder, in each flavour of its interface."""

import json

import onnx
import pytest
from onnx import helper
from support import conv_models, fake_tensorrt_builder

from edgecount.errors import ConfigError, EngineError, ModelError
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of
from edgecount.toolchain.build.engine import OutOfMemoryError, build_engine
from edgecount.toolchain.build.job import Calibration, Job

SHAPE = (1, 3, 64, 64)
FLAVOURS = sorted(fake_tensorrt_builder.VERSIONS)
WEAK = ["8.2", "8.5", "10.3"]


@pytest.fixture
def model(tmp_path):
    return conv_models.yolov8_like(tmp_path / "m.onnx")


@pytest.fixture
def build(tmp_path, model):
    def run(flavour="8.5", *, emit=lambda _kind, **_fields: None, module=None, **changes):
        made = module or fake_tensorrt_builder.module(flavour)
        version = Version.parse("tensorrt", made.__version__)
        asked = {
            "runtime": "tensorrt",
            "source": model,
            "onnx": model,
            "precision": "fp16",
            "strongly_typed": False,
            "profile": Profile(min=SHAPE, opt=SHAPE, max=(4, 3, 128, 128)),
            "dynamic": True,
            "workspace": 2**30,
            "out": tmp_path / "engine",
        }
        job = Job.model_validate({**asked, **changes})
        return build_engine(TensorRt(made, version, features_of(version)), job, emit)

    return run


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_version_gets_workspace_profile_and_details(build, flavour) -> None:
    asked = json.loads(build(flavour, strongly_typed=flavour == "11.0").data)
    assert asked["workspace"] == 2**30
    assert asked["profiles"] == [{"images": [[1, 3, 64, 64], [1, 3, 64, 64], [4, 3, 128, 128]]}]
    assert asked["verbosity"] == "DETAILED"


@pytest.mark.parametrize("flavour", WEAK)
@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", []), ("fp16", ["FP16"]), ("int8", ["FP16", "INT8"])]
)
def test_weakly_typed_builds_set_flags(build, flavour, precision, flags) -> None:
    assert json.loads(build(flavour, precision=precision).data)["flags"] == flags


@pytest.mark.parametrize(("flavour", "flags"), [("10.3", 2), ("11.0", 1)])
def test_strongly_typed_builds_set_none(build, flavour, flags) -> None:
    asked = json.loads(build(flavour, precision="int8", strongly_typed=True, fp32=["head.2"]).data)
    assert asked["flags"] == []
    assert asked["pinned"] == {}
    assert asked["network_flags"] == flags


def test_layers_are_pinned_by_name_and_float32_wins(build) -> None:
    built = build(fp16=("backbone.0", "backbone.1"), fp32=("head.2", "backbone.0"))
    assert json.loads(built.data)["pinned"] == {
        "backbone.0": ["FLOAT", "FLOAT"],
        "backbone.1": ["HALF", "HALF"],
        "head.2": ["FLOAT", "FLOAT"],
    }


def test_layers_of_integers_cannot_be_pinned(build, tmp_path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["images"], ["s"], "shape"),
            helper.make_node("Relu", ["images"], ["y"], "relu"),
        ],
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    path = tmp_path / "shape.onnx"
    onnx.save(helper.make_model(graph), str(path))
    assert list(json.loads(build(onnx=path, fp32=("shape", "relu")).data)["pinned"]) == ["relu"]


@pytest.mark.parametrize("flavour", WEAK)
@pytest.mark.parametrize(
    ("algorithm", "base"),
    [("entropy", "IInt8EntropyCalibrator2"), ("minmax", "IInt8MinMaxCalibrator")],
)
def test_implicit_calibration_hands_over_our_scales(build, flavour, algorithm, base) -> None:
    calibration = Calibration(algorithm=algorithm, cache="TRT-8502-X\nimages: 3c010a14\n")
    asked = json.loads(build(flavour, precision="int8", calibration=calibration).data)
    assert asked["calibration"] == calibration.cache
    assert asked["algorithm"] == base
    assert asked["flags"] == ["FP16", "INT8"]


def test_the_dla_falls_back_to_the_gpu(build) -> None:
    asked = json.loads(
        build(module=fake_tensorrt_builder.module("8.5", dla_cores=2), dla=True).data
    )
    assert asked["device"] == "DLA"
    assert "GPU_FALLBACK" in asked["flags"]


def test_a_device_without_dla_is_told(build) -> None:
    with pytest.raises(ConfigError, match="no DLA: build without --dla"):
        build(dla=True)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_timings_are_read_and_kept(build, flavour, tmp_path) -> None:
    path = tmp_path / "timing" / "t.cache"
    for expected in (b"+timings", b"+timings+timings"):
        build(flavour, strongly_typed=flavour == "11.0", timing_cache=path)
        assert path.read_bytes() == expected


def test_new_versions_report_phases_and_old_ones_lines(build) -> None:
    def events(flavour):
        heard = []
        build(flavour, emit=lambda kind, **fields: heard.append((kind, fields)))
        return heard

    assert events("10.3") == [
        ("phase", {"name": "Building engine", "parent": None, "steps": 2}),
        ("step", {"name": "Building engine", "done": 1}),
        ("finish", {"name": "Building engine"}),
    ]
    assert events("8.2") == [("say", {"text": "timing tactics"})]


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("[defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)",
         OutOfMemoryError),
        ("Requested amount of GPU memory could not be allocated: OutOfMemory", OutOfMemoryError),
        ("Error Code 10: Could not find any implementation for node x", EngineError),
    ],
)  # fmt: skip
def test_a_failed_build_is_told_by_its_first_error(build, told, error) -> None:
    with pytest.raises(error) as caught:
        build(module=fake_tensorrt_builder.module("8.5", fail=told))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("flavour", "told"),
    [
        (
            "8.2",
            r"TensorRT 8\.2\.1 cannot build .*: it does not know an operator \(node number 1\)",
        ),
        ("10.3", r"TensorRT 10\.3\.0 cannot .*it does not know the operator Unheard \(node odd\)"),
    ],
)
def test_an_unknown_operator_is_named(build, tmp_path, flavour, told) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["images"], ["a"], "relu"),
            helper.make_node("Unheard", ["a"], ["y"], "odd"),
        ],
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph), str(path))
    with pytest.raises(ModelError, match=told + "; the file is newer"):
        build(flavour, onnx=path, opset_note="; the file is newer")


def test_layers_are_the_engines_where_it_opens(build) -> None:
    layers = json.dumps({"Layers": [{"Name": "a + b", "LayerType": "CaskConvolution"}]})
    built = build(module=fake_tensorrt_builder.module("8.5", layers=layers))
    assert built.layers_of == "engine"
    assert [layer["name"] for layer in built.layers] == ["a + b"]


def test_layers_are_the_networks_where_it_does_not(build) -> None:
    built = build(module=fake_tensorrt_builder.module("8.5", opens=False))
    assert built.layers_of == "network"
    first = built.layers[0]
    assert (first["name"], first["kind"], first["precision"]) == ("backbone.0", "conv", "fp32")
