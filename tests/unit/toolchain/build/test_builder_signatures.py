"""The fake builder has nothing that the real modules lack.

Real are ``tensorrt_rtx`` and the stubs of TensorRT 10 (a folder that EDGECOUNT_TENSORRT_STUBS
names, made by: pip install --no-deps --target FOLDER tensorrt-stubs).
"""

import os
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
from support import fake_tensorrt_builder as fake

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
