"""What TensorRT itself says about a failure, kept until somebody asks.

TensorRT's calls return None or False and tell the reason to an error recorder and a
logger. Both are classes to derive from, of a module that is only known at run time.
"""

import threading
from collections import deque
from typing import Any, Deque, List, Tuple

import structlog

_MOST = 16
_LONGEST = 400

_log = structlog.get_logger(__name__)


class Journal:
    """The newest errors, oldest first. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: Deque[Tuple[int, str]] = deque(maxlen=_MOST)

    def add(self, code: int, text: str) -> None:
        """Keep an error; one that is there already is not kept twice."""
        shown = " ".join(text.split())[:_LONGEST]
        with self._lock:
            if shown and all(known != shown for _, known in self._errors):
                self._errors.append((code, shown))

    def take(self) -> str:
        """All errors in one line, and forget them; a sentence where there are none."""
        with self._lock:
            texts = [text for _, text in self._errors]
            self._errors.clear()
        return "; ".join(texts) or "it gives no reason"

    def entries(self) -> List[Tuple[int, str]]:
        """Code and text of each."""
        with self._lock:
            return list(self._errors)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._errors.clear()


def logger(trt: Any, journal: Journal) -> Any:
    """A logger for TensorRT: errors into ``journal``, the rest into our log at debug level."""
    severity = trt.ILogger.Severity
    bad = (severity.INTERNAL_ERROR, severity.ERROR)

    class _Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in bad:
                journal.add(int(severity), msg)
            else:
                _log.debug("tensorrt", severity=severity.name, message=msg)

    return _Logger()


def recorder(trt: Any, journal: Journal) -> Any:
    """An error recorder that keeps everything in ``journal``."""

    class _Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def report_error(self, code: Any, desc: str) -> bool:
            journal.add(int(code), desc)
            return False  # TensorRT's own return value tells that the call failed

        def num_errors(self) -> int:
            return len(journal.entries())

        # The bindings ask for this name, but document the one above.
        get_num_errors = num_errors

        def get_error_code(self, index: int) -> Any:
            return trt.ErrorCodeTRT(journal.entries()[index][0])

        def get_error_desc(self, index: int) -> str:
            return journal.entries()[index][1]

        def has_overflowed(self) -> bool:
            return len(journal.entries()) >= _MOST

        def clear(self) -> None:
            journal.clear()

    return _Recorder()
