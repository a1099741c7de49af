"""Objects that TensorRT calls back. Their base classes come with the TensorRT in use."""

from collections import deque
from typing import Any, Deque

from edgecount.toolchain.build.job import Emit

# ILogger.Severity: INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE.
_ERROR, _INFO = 1, 3
_MOST_KEPT = 20


class Log:
    """Keeps TensorRT's errors, and passes its progress on where no monitor can.

    Args:
        emit: Sends an event to the parent.
        quiet: Whether a progress monitor tells how the build goes on.
    """

    def __init__(self, emit: Emit, quiet: bool) -> None:
        self._emit = emit
        self._quiet = quiet
        self.errors: Deque[str] = deque(maxlen=_MOST_KEPT)

    def take(self, severity: int, text: str) -> None:
        """One line of TensorRT."""
        line = " ".join(text.split())
        if severity <= _ERROR:
            self.errors.append(line)
        elif severity <= _INFO and not self._quiet:
            self._emit("say", text=line)

    def forget(self) -> None:
        """Forget errors of an earlier stage that went well in the end."""
        self.errors.clear()

    def last_error(self) -> str:
        """The first error: what follows it follows from it."""
        return self.errors[0] if self.errors else "it gives no reason"


def make_logger(trt: Any, log: Log) -> Any:
    """TensorRT's logger over ``log``."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.take(int(severity), msg)

    return Logger()


def make_monitor(trt: Any, emit: Emit) -> Any:
    """TensorRT's progress monitor; called from several threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
            emit("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            emit("step", name=phase_name, done=step + 1)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            emit("finish", name=phase_name)

    return Monitor()
