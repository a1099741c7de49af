"""The building process: ``python -m edgecount.toolchain.build.worker EVENTS``.

Reads a :class:`~.job.Job` from stdin as one line of JSON, writes events as JSON lines to the
file descriptor EVENTS. Ends when stdin is closed, so that it never outlives its parent,
however that ends.
"""

import json
import os
import sys
import threading
from typing import Any, List

from edgecount.errors import ConfigError, EdgecountError, ModelError
from edgecount.infer.tensorrt import versions
from edgecount.toolchain.build.engine import OutOfMemoryError, build_engine, silence_deprecations
from edgecount.toolchain.build.job import ErrorKind, Job


class _Events:
    """Writes events; TensorRT's threads report at the same time."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def __call__(self, kind: str, **fields: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"kind": kind, **fields}) + "\n")
            self._file.flush()


def main(arguments: List[str]) -> int:
    """Build one engine. Returns the exit code."""
    emit = _Events(int(arguments[0]))
    job = Job.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    silence_deprecations()
    try:
        built = build_engine(versions.find(job.runtime), job, emit)
    except EdgecountError as error:
        emit("error", error=_kind(error), message=str(error))
        return 1
    except MemoryError:
        emit("error", error="memory", message="the process ran out of memory")
        return 1
    job.out.write_bytes(built.data)
    emit("done", layers=built.layers, layers_of=built.layers_of)
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _kind(error: EdgecountError) -> ErrorKind:
    if isinstance(error, OutOfMemoryError):
        return "memory"
    if isinstance(error, ConfigError):
        return "config"
    return "model" if isinstance(error, ModelError) else "engine"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
