"""Run a build in a process of its own, so that its death is survivable."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence, Type

from edgecount.errors import ConfigError, EdgecountError, EngineError, ModelError
from edgecount.toolchain.build.job import Job, Progress, forward

_WORKER = (sys.executable, "-m", "edgecount.toolchain.build.worker")
_MIB = 2**20
LEAST_WORKSPACE = 32 * _MIB
_SHRINK = 4  # a second try must be worth its minutes


class Outcome(NamedTuple):
    """A build that went well.

    Attributes:
        layers: See the manifest.
        layers_of: Likewise.
        workspace: Scratch memory that was allowed, bytes.
    """

    layers: List[Dict[str, Any]]
    layers_of: str
    workspace: int


class _DiedError(Exception):
    """The process ran out of memory or was killed: another try may go well."""


def run(job: Job, progress: Progress, worker: Sequence[str] = _WORKER) -> Outcome:
    """Build; once more with a quarter of the workspace if the process dies or lacks memory.

    Args:
        job: What to build.
        progress: Told how it goes on.
        worker: The command that builds; see :mod:`.worker`.

    Raises:
        ConfigError: The device lacks what was asked for.
        ModelError: The file cannot be built.
        EngineError: TensorRT failed, or died twice.
    """
    try:
        return _attempt(job, progress, worker)
    except _DiedError as first:
        smaller = max(min(LEAST_WORKSPACE, job.workspace), job.workspace // _SHRINK)
        progress.say(f"{first}; trying once more with {smaller // _MIB} MiB of workspace")
    try:
        return _attempt(job.model_copy(update={"workspace": smaller}), progress, worker)
    except _DiedError as second:
        raise EngineError(
            f"{second}, twice: close other programs or add swap, or build a smaller input or batch"
        ) from None


def _attempt(job: Job, progress: Progress, worker: Sequence[str]) -> Outcome:
    read_end, write_end = os.pipe()
    complaints = job.out.with_suffix(".stderr")
    with complaints.open("wb") as stderr, os.fdopen(read_end, encoding="utf-8") as events:
        try:
            child = _start(worker, write_end, stderr)
        finally:
            os.close(write_end)
        # Leaving closes the child's stdin, at which it ends; so does the death of this process.
        with child:
            _hand_over(child, job)
            last = _follow(events, progress)
    return _judge(child.returncode, last, job, complaints)


def _start(worker: Sequence[str], events: int, stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        [*worker, str(events)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=(events,),
    )


def _hand_over(child: "subprocess.Popen[bytes]", job: Job) -> None:
    if child.stdin is None:
        raise EngineError("the building process has no stdin")
    child.stdin.write(job.model_dump_json().encode() + b"\n")
    child.stdin.flush()


def _follow(events: IO[str], progress: Progress) -> Optional[Dict[str, Any]]:
    """Pass events on until the child closes its end; returns the last of them."""
    event: Optional[Dict[str, Any]] = None
    for line in events:
        try:
            event = json.loads(line)
        except ValueError:  # cut off by the child's death
            return None
        if event is not None:
            forward(event, progress)
    return event


def _judge(code: int, last: Optional[Dict[str, Any]], job: Job, complaints: Path) -> Outcome:
    """What came of it, by the exit code and the last event."""
    if last is not None and last["kind"] == "done" and code == 0:
        return Outcome(last["layers"], last["layers_of"], job.workspace)
    if last is not None and last["kind"] == "error":
        raise _reported(last)
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as Linux does when memory runs out" if name == "SIGKILL" else ""
        raise _DiedError(f"the building process was killed ({name}{hint})")
    tail = complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise EngineError(
        f"the building process ended with {code}: {tail[-1] if tail else 'it said nothing'}"
    )


def _reported(event: Dict[str, Any]) -> Exception:
    message = event["message"]
    if event["error"] == "memory":
        return _DiedError(f"memory ran out ({message})")
    kinds: Dict[str, Type[EdgecountError]] = {"config": ConfigError, "model": ModelError}
    return kinds.get(event["error"], EngineError)(message)
