"""All checks in a row."""

import os
import socket
from pathlib import Path
from typing import Iterator, Optional, Tuple

from edgecount.config import Settings, load
from edgecount.count._file import ledger_path
from edgecount.errors import EdgecountError
from edgecount.redact import Redactor
from edgecount.toolchain.doctor import broker, cameras, device, engines, host
from edgecount.toolchain.doctor import model as models
from edgecount.toolchain.doctor.finding import Finding


def examine(config: Optional[Path], root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the device and, where a configuration is given, at all it names.

    Args:
        config: The configuration file, or None.
        root: Under which the board's files lie.

    Yields:
        Findings as they come, with secrets masked.
    """
    settings, verdict = _read(config)
    redact = Redactor(settings.secrets() if settings else ())
    for finding in _all(settings, verdict, root):
        yield Finding(finding.check, finding.state, redact(finding.detail), redact(finding.remedy))


def _read(config: Optional[Path]) -> Tuple[Optional[Settings], Finding]:
    if config is None:
        hint = "give one with -c to have cameras, broker and model looked at"
        return None, Finding("configuration", "skip", "none was given", hint)
    try:
        settings = load(config)
    except EdgecountError as error:
        return None, Finding("configuration", "fail", str(error), "correct the lines named")
    return settings, Finding("configuration", "ok", str(config))


def _all(settings: Optional[Settings], verdict: Finding, root: Path) -> Iterator[Finding]:
    yield from device.examine(root)
    yield from engines.examine_default()
    ledger = settings.ledger.path if settings else None
    yield from host.examine(ledger_path(ledger, os.environ))
    yield verdict
    if settings is None:
        return
    yield port(settings)
    yield from models.examine(settings)
    yield from broker.examine(settings)
    yield from cameras.examine(settings.cameras, models.sight_of(settings))


def port(settings: Settings) -> Finding:
    """Whether the HTTP server's port is free."""
    if not settings.http.enabled or settings.http.port == 0:
        return Finding("http", "ok", "no fixed port is wanted")
    where = f"{settings.http.bind}:{settings.http.port}"
    family = socket.AF_INET6 if ":" in settings.http.bind else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.http.bind, settings.http.port))
        except OSError as error:
            remedy = "no matter if that is edgecount itself; else set http.port to a free one"
            return Finding("http", "warn", f"{where}: {error.strerror}", remedy)
    return Finding("http", "ok", f"{where} is free")
