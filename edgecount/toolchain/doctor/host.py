"""The host: memory, clock, disk."""

import ctypes
import os
import shutil
import time
from pathlib import Path
from typing import Callable, Iterator, Optional

import psutil

from edgecount.toolchain.doctor.finding import Finding

_MIB = 1024.0 * 1024.0
_GIB = 1024.0 * _MIB
_LEAST_MEMORY = 400.0 * _MIB
_LITTLE_DISK, _NO_DISK = 1.0 * _GIB, 0.1 * _GIB
# adjtimex(2): the answer when the clock is not synchronised, and the size of its argument.
_TIME_ERROR = 5
_TIMEX_BYTES = 208
_THIS_CODE_IS_YOUNGER_THAN = 1_700_000_000.0  # November 2023


def memory() -> Finding:
    """Whether there is memory left for the service."""
    seen = psutil.virtual_memory()
    detail = f"{seen.available / _GIB:.1f} of {seen.total / _GIB:.1f} GiB available"
    if seen.available < _LEAST_MEMORY:
        return Finding("memory", "warn", detail, "stop other programs, or add swap")
    return Finding("memory", "ok", detail)


def clock(
    state: Optional[Callable[[], Optional[int]]] = None, now: Callable[[], float] = time.time
) -> Finding:
    """Whether the wall clock is set and kept in step; events carry its time.

    Args:
        state: The kernel's answer to adjtimex(2), None where it cannot be asked.
        now: UTC seconds since 1970.
    """
    remedy = "enable a time service: timedatectl set-ntp true (or install chrony)"
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now()))
    if now() < _THIS_CODE_IS_YOUNGER_THAN:
        return Finding("clock", "fail", f"it shows {shown}, which is long ago", remedy)
    answer = (state or _kernel_clock)()
    if answer is None:
        return Finding("clock", "skip", f"{shown}; the kernel cannot be asked whether it is kept")
    if answer == _TIME_ERROR:
        return Finding("clock", "warn", f"{shown}, not synchronised", remedy)
    return Finding("clock", "ok", f"{shown}, synchronised")


def disk(ledger: Path) -> Finding:
    """Whether counts can be kept at ``ledger`` for long."""
    folder = next(p for p in (ledger.parent, *ledger.parent.parents) if p.exists())
    if not os.access(folder, os.W_OK):
        remedy = f"run it as the user who owns the folder, or: chown edgecount {folder}"
        return Finding("disk", "fail", f"{folder} cannot be written", remedy)
    free = shutil.disk_usage(folder).free
    detail = f"{free / _GIB:.1f} GiB free for {ledger}"
    remedy = "free some space, or move the ledger with ledger.path"
    if free < _NO_DISK:
        return Finding("disk", "fail", detail, remedy)
    if free < _LITTLE_DISK:
        return Finding("disk", "warn", detail, remedy)
    return Finding("disk", "ok", detail)


def examine(ledger: Path) -> Iterator[Finding]:
    """All checks of the host."""
    yield memory()
    yield clock()
    yield disk(ledger)


def _kernel_clock() -> Optional[int]:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # All zero is a question; the struct is 208 bytes on 64-bit Linux and smaller elsewhere.
        answer = int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return answer if answer >= 0 else None
