"""The fake builder has nothing that the real modules lack.

Real are ``tensorrt_rtx`` and the stubs of TensorRT 10 (a folder that EDGECOUNT_TENSORRT_STUBS
names, made by: pip install --no-deps --target FOLDER tensorrt-stubs).
"""

import inspect
import os
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
from support import fake_tensorrt_builder as fake
from support.tensorrt_signatures import Members, members_of_binding, stubs

from edgecount.toolchain.build.callbacks import make_monitor

_CLASSES = {
    "Builder": fake._Builder,
    "IBuilderConfig": fake._Config,
    "ILayer": fake._Layer,
    "INetworkDefinition": fake._Network,
    "IOptimizationProfile": fake._Profile,
    "OnnxParser": fake._Parser,
}
# Of the fakes alone: what tests read from them.
_OURS = {"asked", "layers", "inputs", "input_shapes", "shapes", "profiles", "ready"}
_CONFIG = ["set_memory_pool_limit", "progress_monitor"]
_LAYER = ["precision", "name", "type", "num_inputs", "num_outputs"]
_WEAK = {"precision", "set_output_type"}  # left with weak typing


def _used() -> Dict[str, List[str]]:
    used = {
        name: [a for a in vars(cls) if not a.startswith("_") and a not in _OURS]
        for name, cls in _CLASSES.items()
    }
    used["IBuilderConfig"] += _CONFIG
    used["ILayer"] += _LAYER
    used["Builder"] += ["num_DLA_cores"]
    used["ParserError"] = ["code", "desc", "node", "node_name", "node_operator"]
    used["EngineInspector"] = ["get_engine_information"]
    used["Runtime"] = ["deserialize_cuda_engine"]
    used["ICudaEngine"] = ["create_engine_inspector"]
    used["IProgressMonitor"] = ["phase_start", "step_complete", "phase_finish"]
    return used


@pytest.mark.parametrize("name", sorted(_used()))
def test_tensorrt_rtx_has_it_all(name) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt-rtx-cu13")
    missing = [a for a in _used()[name] if not hasattr(getattr(rtx, name), a)]
    assert set(missing) <= (_WEAK if name == "ILayer" else set())


def test_tensorrt_rtx_has_the_enums() -> None:
    rtx: Any = pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt-rtx-cu13")
    module = fake.module("11.0")
    for name in ("BuilderFlag", "NetworkDefinitionCreationFlag", "ProfilingVerbosity",
                 "DeviceType", "LayerInformationFormat", "MemoryPoolType"):  # fmt: skip
        for member in getattr(module, name).__members__:
            assert hasattr(getattr(rtx, name), member), f"{name}.{member}"


@pytest.mark.parametrize("name", sorted([*_used(), "IInt8EntropyCalibrator2",
                                         "IInt8MinMaxCalibrator"]))  # fmt: skip
def test_tensorrt_10_has_it_all(name) -> None:
    folder = os.environ.get("EDGECOUNT_TENSORRT_STUBS")
    if not folder:
        pytest.skip("EDGECOUNT_TENSORRT_STUBS does not name the stubs")
    text = Path(folder, "tensorrt_bindings", "tensorrt.pyi").read_text(encoding="utf-8")
    used = {**_used(), "IInt8EntropyCalibrator2": ["get_batch", "read_calibration_cache"]}
    used["IInt8MinMaxCalibrator"] = used["IInt8EntropyCalibrator2"]
    body = re.search(rf"(?ms)^class {name}\b.*?(?=^class |\Z)", text)
    assert body is not None
    members = set(re.findall(r"(?m)^ +(?:def )?(\w+)(?= *[(:])", body.group(0)))
    assert set(used[name]) - members == set()


# What the builder passes, in the parameters' order; the fake's names are its own.
_CALLS = {
    "Builder": {"create_network": 1, "build_serialized_network": 2},
    "IBuilderConfig": {
        "set_flag": 1,
        "add_optimization_profile": 1,
        "create_timing_cache": 1,
        "set_timing_cache": 2,
        "set_memory_pool_limit": 2,
    },
    "INetworkDefinition": {"get_input": 1, "get_layer": 1},
    "IOptimizationProfile": {"set_shape": 4},
    "EngineInspector": {"get_engine_information": 1},
}
_WEAK_CALLS = {"IBuilderConfig": {"set_calibration_profile": 1}, "ILayer": {"set_output_type": 2}}
_SET = {"Builder": ["num_DLA_cores"],
        "IBuilderConfig": ["default_device_type", "DLA_core", "progress_monitor",
                           "profiling_verbosity"]}  # fmt: skip
_CALLED_BACK = {
    "phase_start": ["phase_name", "parent_phase", "num_steps"],
    "step_complete": ["phase_name", "step"],
    "phase_finish": ["phase_name"],
}
_ENUMS = {
    "BuilderFlag": {"FP16", "INT8", "GPU_FALLBACK"},
    "DeviceType": {"DLA"},
    "MemoryPoolType": {"WORKSPACE"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH", "STRONGLY_TYPED"},
    "ProfilingVerbosity": {"DETAILED"},
    "LayerInformationFormat": {"JSON"},
}


def test_tensorrt_rtx_takes_the_arguments() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt-rtx-cu13")
    real = {name: members_of_binding(getattr(rtx, name)) for name in (*_CALLS, *_SET)}
    _check_calls(_CALLS, real)
    _check_properties(real)
    _check_monitor(members_of_binding(rtx.IProgressMonitor))


def test_tensorrt_10_takes_the_arguments() -> None:
    names = (*_CALLS, "ILayer", "IProgressMonitor", "IInt8EntropyCalibrator2",
             "IInt8MinMaxCalibrator", *_ENUMS)  # fmt: skip
    real = stubs(names)
    _check_calls(_CALLS, real)
    _check_calls(_WEAK_CALLS, real)
    _check_properties(real)
    _check_monitor(real["IProgressMonitor"])
    assert real["IBuilderConfig"]["int8_calibrator"] is None
    assert real["ILayer"]["precision"] is None
    for name in ("IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"):
        members = real[name]
        assert members["get_batch_size"] == members["read_calibration_cache"] == [[]]
        assert members["get_batch"] == [["names"]]
        assert members["write_calibration_cache"] == [["cache"]]
    for name, wanted in _ENUMS.items():
        assert wanted <= set(real[name])


def _check_calls(calls: Dict[str, Dict[str, int]], real: Dict[str, Members]) -> None:
    for name, methods in calls.items():
        for method, given in methods.items():
            overloads = real[name][method]
            assert overloads, f"{name}.{method} is no method"
            assert any(len(o) == given for o in overloads), f"{name}.{method} takes {overloads}"


def _check_properties(real: Dict[str, Members]) -> None:
    for name, properties in _SET.items():
        for member in properties:
            assert real[name][member] is None, f"{name}.{member} is no property"


def _check_monitor(real: Members) -> None:
    """Of our monitor, too: TensorRT calls it by position."""
    monitor = make_monitor(fake.module("11.0"), lambda _kind, **_fields: None)
    for name, parameters in _CALLED_BACK.items():
        assert list(inspect.signature(getattr(monitor, name)).parameters) == parameters
        assert real[name] == [parameters]
