"""ONNX files as graphs: read with one sentence where that fails, and the notes in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from edgecount.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path, extra: str = "quantize") -> "onnx.ModelProto":
    """The contents of an ONNX file.

    Args:
        path: The file.
        extra: The extra that brings onnx for the caller's work.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The file cannot be read, is damaged, or holds no network.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", extra) from error
    try:
        model = onnx.load(str(path))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError, which its versions keep elsewhere
        raise ModelError(f"{path} is no ONNX file, or a damaged one") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is no ONNX file, or a damaged one: it holds no network")
    return model


def note_in(model: "onnx.ModelProto", key: str) -> Optional[str]:
    """What a model's metadata holds under a key; None where there is nothing."""
    return next((e.value for e in model.metadata_props if e.key == key), None)


def leave_note(model: "onnx.ModelProto", key: str, text: str) -> None:
    """Write a text into a model's metadata, instead of one that is there under this key."""
    entry = next((e for e in model.metadata_props if e.key == key), None)
    entry = entry or model.metadata_props.add(key=key)
    entry.value = text
