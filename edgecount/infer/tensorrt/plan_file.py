"""An engine file: a plan as TensorRT wrote it, with or without Ultralytics' header.

Ultralytics writes a length (4 bytes, little-endian) and that many bytes of JSON before the
plan: class names, strides, input size. TensorRT's own plan begins with a magic word.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional

from edgecount.errors import ConfigError, ModelError

SUFFIXES = (".engine", ".plan", ".trt")
_LENGTH = 4
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class PlanFile:
    """What an engine file holds.

    Attributes:
        path: The file.
        plan: TensorRT's part of it.
        metadata: The header's values as text, as an ONNX file's metadata; empty without one.
    """

    path: Path
    plan: bytes
    metadata: Mapping[str, str]

    @property
    def declared_precision(self) -> Optional[str]:
        """``int8`` or ``fp16`` where the header says so."""
        arguments = _object(self.metadata.get("args", ""))
        if arguments.get("int8"):
            return "int8"
        return "fp16" if arguments.get("half") else None


def read(path: Path) -> PlanFile:
    """Read an engine file.

    Raises:
        ConfigError: It does not exist or cannot be read.
        ModelError: It is empty, or no engine at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the engine {path}: {error.strerror}") from error
    if len(data) <= _LENGTH:
        raise ModelError(f"the engine {path} holds {len(data)} bytes: build it again")
    return split(path, data)


def split(path: Path, data: bytes) -> PlanFile:
    """Part header and plan.

    Raises:
        ModelError: The header announces more than the file holds.
    """
    header = _header(data)
    if header is None:
        return PlanFile(path, data, {})
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if end == len(data):
        raise ModelError(f"the engine {path} ends after its header: build it again")
    return PlanFile(path, data[end:], header)


def _header(data: bytes) -> Optional[Dict[str, str]]:
    length = int.from_bytes(data[:_LENGTH], "little")
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - _LENGTH) or data[_LENGTH] != ord("{"):
        return None
    try:
        values = json.loads(data[_LENGTH : _LENGTH + length].decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None
    return {str(k): v if isinstance(v, str) else _literal(v) for k, v in values.items()}


def _literal(value: object) -> str:
    """As Ultralytics writes it into an ONNX file, where the same keys hold Python literals."""
    return json.dumps(value) if isinstance(value, dict) and "int8" in value else str(value)


def _object(text: str) -> Dict[str, object]:
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
