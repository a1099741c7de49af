"""The libraries that may run a network on this CPU."""

import os
from typing import List

from edgecount.config import ModelSettings
from edgecount.errors import MissingExtraError
from edgecount.infer import onnxruntime, openvino
from edgecount.infer.precision import Runtime


def of(settings: ModelSettings) -> List[Runtime]:
    """What ``settings`` allow and this machine has; ONNX Runtime, which is always there, first.

    Raises:
        MissingExtraError: OpenVINO is asked for and not installed.
    """
    asked, version = settings.cpu_runtime, openvino.installed_version()
    if asked == openvino.NAME and version is None:
        raise MissingExtraError(openvino.NAME, openvino.NAME)
    calls = workers(settings)
    found = []
    if asked != openvino.NAME:
        found.append(Runtime(onnxruntime.NAME, onnxruntime.VERSION, onnxruntime.OrtNetwork))
    if asked != onnxruntime.NAME and version is not None:
        found.append(
            Runtime(openvino.NAME, version, lambda path: openvino.OpenVinoNetwork(path, calls))
        )
    return found


def workers(settings: ModelSettings) -> int:
    """Pictures that are detected at the same time."""
    return settings.threads or os.cpu_count() or 1
