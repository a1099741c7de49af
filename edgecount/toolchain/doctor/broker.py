"""The broker: can we reach it, and does it let us in."""

import socket
from typing import Iterator, Optional, Sequence

from edgecount.config import Settings
from edgecount.errors import EdgecountError
from edgecount.publish._connection import Connection
from edgecount.publish._faults import Faults
from edgecount.toolchain.doctor.finding import Finding


class _Deaf:
    """Hears nothing: a login is all that is wanted."""

    def acknowledged(self, mid: int, refusal: Optional[str]) -> None:
        """Not asked for."""

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """Not asked for."""

    def subscribed(self, topics: Sequence[str], refusal: Optional[str]) -> None:
        """Not asked for."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Log in as the service does, under another client id so as not to push it out."""
    mqtt = settings.mqtt
    if mqtt is None:
        yield Finding("broker", "skip", "none is configured; nothing is published")
        return
    client_id = f"{mqtt.client_id or 'edgecount-' + settings.device}-doctor"
    prefix = mqtt.prefix.replace("{device}", settings.device)
    where = f"{mqtt.host}:{mqtt.port}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            connection = Connection(
                mqtt, client_id, f"{prefix}/doctor", Faults(mqtt, client_id), _Deaf(), ours
            )
            connection.open()
            connection.close()
        except EdgecountError as error:
            yield Finding("broker", "fail", str(error))
            return
    user = f" as {mqtt.username!r}" if mqtt.username else " without a login"
    tls = ", TLS" if mqtt.tls is not None else ", not encrypted"
    yield Finding("broker", "ok", f"{where} lets us in{user}{tls}")
