"""A build in a process of its own, so that neither its memory nor its failure is ours."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Callable, List, Optional, Sequence

import structlog

from edgecount.errors import EngineError
from edgecount.infer.tensorrt.choice import Asked
from edgecount.infer.tensorrt.keeper import Outcome
from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.profile import show

# A large network on a small board takes half an hour.
LONGEST_S = 2 * 3600.0
_GRACE_S = 3.0
_NICE = 10

_log = structlog.get_logger(__name__)


class ChildBuild:
    """Runs a command; see :class:`~.keeper.Build`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start it, with less claim to the processor than counting has.

        Args:
            command: Ends with 0 when the engine is in the cache; else the last line that it
                writes to stderr says why not.
            longest_s: Seconds after which it is stopped.
            clock: Monotonic seconds.

        Raises:
            EngineError: It cannot be started.
        """
        self._clock = clock
        self._deadline = clock() + longest_s
        self._longest_s = longest_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise EngineError(f"cannot start the build: {error}") from error
        self._lower()

    def poll(self) -> Optional[Outcome]:
        """How it ended; None while it goes on."""
        code = self._process.poll()
        if code is not None:
            return Outcome(self._why(code) if code else None)
        if self._clock() < self._deadline:
            return None
        self.stop()
        return Outcome(f"it took longer than {self._longest_s / 3600:.1f} hours and was stopped")

    def stop(self) -> None:
        """End it and what it has started."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._signal(how)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                continue

    def _signal(self, how: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, how)
        except ProcessLookupError:
            _log.debug("build_ended_by_itself")

    def _lower(self) -> None:
        try:
            os.setpriority(os.PRIO_PGRP, self._process.pid, _NICE)
        except OSError as error:  # it is over already
            _log.debug("build_not_lowered", reason=str(error))

    def _why(self, code: int) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = lines[-1].strip() if lines else ""
        if code < 0:
            killed = signal.Signals(-code).name
            hint = ": the system ran out of memory" if code == -signal.SIGKILL else ""
            return f"the process was ended by {killed}{hint}"
        return last or f"the process ended with {code}"


def build_command(model: str, key: BuildKey, asked: Asked) -> List[str]:
    """The command that builds the engine of ``key`` into the cache.

    Args:
        model: Name, folder or file of the model.
        key: Of the engine.
        asked: The precision in the configuration; for ``auto`` FP16 is built as well where
            INT8 is possible, and what is faster counts.
    """
    profile = key.profile
    precision = "auto" if asked == "auto" else key.precision
    command = [sys.executable, "-m", "edgecount", "build", model]
    command += ["--precision", precision, "--runtime", key.runtime]
    command += ["--workspace", f"{key.workspace // 2**20}MiB"]
    command += ["--min", show(profile.min), "--opt", show(profile.opt), "--max", show(profile.max)]
    return [*command, "--json", *(["--dla"] if key.dla else [])]
