"""Tell systemd how the service is: ready, alive, stopping.

The protocol (sd_notify(3)) is one datagram to the socket named in ``NOTIFY_SOCKET``: a
few lines here rather than a dependency, of which the pure one (sdnotify) has not been
maintained since 2016 and the official one (systemd-python) needs a compiler and libsystemd's
headers on the board. Where the variable is not set, every call does nothing.
"""

import os
import socket
import threading
import time
from typing import Mapping, Optional

import structlog

from edgecount.observe.health import Health

_log = structlog.get_logger(__name__)


class Notifier:
    """Sends notifications to the service manager. Safe from any thread; never blocks.

    Args:
        address: Value of ``NOTIFY_SOCKET``: a path, or a name in the abstract namespace
            after ``@``; None sends nothing.
    """

    def __init__(self, address: Optional[str]) -> None:
        self._address = _socket_address(address)

    @staticmethod
    def from_environ(environ: Mapping[str, str] = os.environ) -> "Notifier":
        """The notifier of this process."""
        return Notifier(environ.get("NOTIFY_SOCKET"))

    def ready(self, status: str = "") -> bool:
        """Start-up is over, or a reload is."""
        return self._send("READY=1", status)

    def reloading(self) -> bool:
        """The configuration is read again; ``ready`` must follow."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> bool:
        """The service shuts down."""
        return self._send("STOPPING=1", status)

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send("", text)

    def watchdog(self) -> bool:
        """The service is alive."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Starting, reloading or stopping takes up to this much longer from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, state: str, status: str = "") -> bool:
        """True when the datagram was handed over; a manager that is away is no error."""
        if self._address is None:
            return False
        # A line break in a status would begin a new assignment.
        lines = [state] if state else []
        lines += [f"STATUS={' '.join(status.split())}"] if status else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode("utf-8"), self._address)
        except OSError as error:
            _log.debug("systemd_unreachable", reason=str(error))
            return False
        return True


class Watchdog:
    """Beats three times per period for as long as the service is alive.

    When a stage hangs the beats stop, and systemd kills and restarts the service. It is
    started before the long steps of a start (systemd counts from READY) and stopped last.

    Args:
        notifier: Where the beats go.
        health: Asked before every beat.
        period_s: The manager's ``WatchdogSec`` in seconds.
    """

    def __init__(self, notifier: Notifier, health: Health, period_s: float) -> None:
        self._notifier = notifier
        self._health = health
        self._interval_s = period_s / 3
        self._stop = threading.Event()
        self._withheld = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Stop beating. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._beat()
        while not self._stop.wait(self._interval_s):
            self._beat()

    def _beat(self) -> None:
        alive = self._health.alive()
        if alive.ok:
            self._notifier.watchdog()
        elif not self._withheld:
            _log.error("watchdog_withheld", reasons=list(alive.reasons))
            self._notifier.status(f"hung: {'; '.join(alive.reasons)}")
        self._withheld = not alive.ok


def watchdog_period_s(
    environ: Mapping[str, str] = os.environ, pid: Optional[int] = None
) -> Optional[float]:
    """The period that the service manager asks for in seconds, or None where it asks for none."""
    wanted = environ.get("WATCHDOG_PID")
    if wanted is not None and wanted != str(os.getpid() if pid is None else pid):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdigit() and int(usec) > 0 else None


def _socket_address(name: Optional[str]) -> Optional[str]:
    if name and name[0] == "@":
        return "\0" + name[1:]
    return name if name and name[0] == "/" else None
