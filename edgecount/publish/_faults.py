"""What is wrong between us and the broker, in sentences that say what to do."""

import socket
import ssl
from typing import Optional

from edgecount.config import MqttSettings
from edgecount.errors import PublishError

# OpenSSL's X509_V_ERR_* (openssl-verification-options(1)).
_EXPIRED = 10
_NOT_YET_VALID = 9
_HOST_MISMATCH = 62
_IP_MISMATCH = 64
_UNKNOWN_CA = (2, 18, 19, 20, 21)

_LOGIN = ("Bad user name or password", "Not authorized", "Bad authentication method")
_LATER = ("Server unavailable", "Server busy", "Connection rate exceeded", "Quota exceeded")


class Faults:
    """Translates errors of sockets, TLS and MQTT for one broker."""

    def __init__(self, settings: MqttSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._broker = f"the broker {settings.host}:{settings.port}"

    def connecting(self, error: Exception) -> PublishError:
        """The connection could not be made."""
        if isinstance(error, ssl.SSLError):
            return PublishError(self._tls(error), retry=False)
        if isinstance(error, socket.gaierror):
            return PublishError(
                f"the broker's name {self._settings.host!r} is not known to DNS ({error}): "
                "check mqtt.host and the network"
            )
        if isinstance(error, ConnectionRefusedError):
            return PublishError(f"{self._broker} is not there: nothing listens at that port")
        if isinstance(error, ConnectionResetError) and self._settings.tls is not None:
            return PublishError(
                f"{self._broker} breaks off the TLS handshake: it may not speak TLS at this port "
                "(check mqtt.port)",
                retry=False,
            )
        if isinstance(error, (socket.timeout, TimeoutError)):
            return PublishError(f"{self._broker} does not answer: check mqtt.host and firewalls")
        return PublishError(f"{self._broker} cannot be reached: {error}")

    def refused(self, reason: str) -> PublishError:
        """The broker answered the login with a refusal."""
        if reason in _LOGIN:
            user = self._settings.username
            who = f"user {user!r}" if user else "a client without username"
            return PublishError(
                f"{self._broker} refuses the login of {who} ({reason}): check mqtt.username "
                "and mqtt.password, and that this user may publish under the prefix",
                retry=False,
            )
        if reason == "Client identifier not valid":
            return PublishError(
                f"{self._broker} does not accept the client id {self._client_id!r}: "
                "set mqtt.client_id",
                retry=False,
            )
        if reason == "Unsupported protocol version":
            return PublishError(
                f"{self._broker} does not speak MQTT {self._settings.protocol}: "
                f"set mqtt.protocol to {'3.1.1' if self._settings.protocol == '5' else '5'!r}",
                retry=False,
            )
        return PublishError(
            f"{self._broker} refuses the connection: {reason}", retry=reason in _LATER
        )

    def lost(self, detail: str) -> PublishError:
        """An established connection ended."""
        return PublishError(f"the connection to {self._broker} was lost: {detail}")

    def unanswered(self, detail: str) -> PublishError:
        """The connection ended before the broker answered the login."""
        if self._settings.tls is None:
            hint = "it may want TLS at this port (set mqtt.tls), or be no MQTT broker"
        elif self._settings.tls.cert is None:
            hint = "it may want a client certificate (set mqtt.tls.cert and mqtt.tls.key)"
        else:
            hint = "it may not accept the client certificate mqtt.tls.cert"
        return PublishError(
            f"{self._broker} closed the connection without an answer ({detail}): {hint}",
            retry=False,
        )

    def taken_over(self) -> PublishError:
        """Another client logged in under our id."""
        return PublishError(
            f"another client took over our connection: it uses the same client id "
            f"{self._client_id!r}; give every device its own 'device' or mqtt.client_id",
            retry=False,
        )

    def flapping(self) -> PublishError:
        """MQTT 3.1.1 cannot say that another client took over; closing again and again does."""
        return PublishError(
            f"{self._broker} closes the connection right after each login; mostly this means "
            f"that another client uses the same client id {self._client_id!r}, or that this "
            "user may not do what it does (see the broker's log)",
            retry=False,
        )

    def not_permitted(self, what: str, topic: str, reason: str) -> PublishError:
        """The broker did not let us publish or subscribe."""
        user = self._settings.username or "anonymous"
        return PublishError(
            f"{self._broker} does not permit user {user!r} to {what} {topic} ({reason}): "
            "extend its access rights, or change mqtt.prefix",
            retry=False,
        )

    def _tls(self, error: ssl.SSLError) -> str:
        code: Optional[int] = getattr(error, "verify_code", None)
        if code == _EXPIRED:
            return f"the certificate of {self._broker} has expired: renew it there"
        if code == _NOT_YET_VALID:
            return (
                f"the certificate of {self._broker} is not valid yet: check this device's clock, "
                "then the certificate"
            )
        if code in (_HOST_MISMATCH, _IP_MISMATCH):
            return (
                f"the certificate of {self._broker} is for another host name: use the name that "
                "it bears as mqtt.host, or get one for this name"
            )
        if code in _UNKNOWN_CA:
            return (
                f"the certificate of {self._broker} was issued by an unknown CA: set mqtt.tls.ca "
                "to the CA's certificate"
            )
        if "WRONG_VERSION_NUMBER" in str(error) or "UNEXPECTED_EOF" in str(error):
            return f"{self._broker} does not speak TLS at this port (check mqtt.port)"
        return f"TLS with {self._broker} failed: {error}"
