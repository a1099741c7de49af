"""One connection to the broker, from login to loss; paho-mqtt stays behind this wall.

A new client object serves every connection: what paho would remember of the last one
(queues, its own back-off, a downgraded protocol) is kept by the outbox and the mailbox
instead, which survive restarts or are bounded.
"""

import contextlib
import select
import selectors
import socket
import ssl
from typing import Any, Dict, List, Optional, Sequence

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from typing_extensions import Protocol

from edgecount.config import MqttSettings, TlsSettings
from edgecount.errors import ConfigError, PublishError
from edgecount.publish._faults import Faults

_TCP_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0
_MOST_IN_FLIGHT = 65_535
_TAKEN_OVER = "Session taken over"


class Listener(Protocol):
    """Hears what the broker says, on the thread that calls ``turn``."""

    def acknowledged(self, mid: int, refusal: Optional[str]) -> None:
        """The broker answered a message; ``refusal`` says why it did not take it."""
        ...

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message came in."""
        ...

    def subscribed(self, topics: Sequence[str], refusal: Optional[str]) -> None:
        """The broker answered a subscription."""
        ...


class Connection:
    """Logs in and turns the loop. Used from one thread.

    Args:
        settings: The broker, and how to log in.
        client_id: Who we are.
        will: Topic on which the broker says ``offline`` for us when we are lost.
        faults: Translates errors.
        listener: Hears what comes in.
        wake: A socket that becomes readable when ``turn`` shall return.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        will: str,
        faults: Faults,
        listener: Listener,
        wake: socket.socket,
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._listener = listener
        self._wake = wake
        self._subscriptions: Dict[int, Sequence[str]] = {}
        self._answer: Optional[ReasonCode] = None
        self._goodbye: Optional[str] = None
        self._detail = "the connection was closed"
        self.receive_maximum = _MOST_IN_FLIGHT
        self._client = self._make_client(client_id, will)

    def open(self) -> None:
        """Connect, log in, and wait for the broker's answer.

        Raises:
            PublishError: It did not work; ``retry`` is false where a person must act.
        """
        settings = self._settings
        try:
            self._log_in()
            self._client.connect(
                settings.host,
                settings.port,
                settings.keepalive_s,
                **self._session(),
            )
        except (OSError, ssl.SSLError) as error:
            raise self._faults.connecting(error) from None
        self._await_answer()

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Send with QoS 1; returns the packet's number, which ``acknowledged`` names again.

        Raises:
            PublishError: The connection is lost.
        """
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN):
            raise self._loss()
        return int(info.mid)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for messages on ``topics`` with QoS 1."""
        if self._settings.protocol == "5":
            wanted: List[Any] = [(t, SubscribeOptions(qos=1)) for t in topics]
        else:
            wanted = [(t, 1) for t in topics]
        _, mid = self._client.subscribe(wanted)
        if mid is not None:
            self._subscriptions[mid] = tuple(topics)

    def turn(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the network or for ``wake``, and serve it.

        Raises:
            PublishError: The connection is lost.
        """
        sock = self._client.socket()
        if sock is None:
            raise self._loss()
        self._check(self._serve(sock, timeout))

    def close(self) -> None:
        """Say goodbye (the will is not published) and close. Never raises."""
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    # -- making it -------------------------------------------------------------------------

    def _make_client(self, client_id: str, will: str) -> paho.Client:
        settings = self._settings
        five = settings.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else settings.session_expiry_s == 0,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _TCP_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the sink keeps to the broker's receive maximum
        client.will_set(will, b"offline", qos=1, retain=True)
        if settings.tls is not None:
            client.tls_set_context(tls_context(settings.tls))
            client.tls_insecure_set(not settings.tls.check_hostname)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_log = self._on_log
        client.on_socket_open = _without_delay
        return client

    def _log_in(self) -> None:
        if self._settings.username is not None:
            self._client.username_pw_set(self._settings.username, password(self._settings))

    def _session(self) -> "dict[str, Any]":
        if self._settings.protocol != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._settings.session_expiry_s
        return {"clean_start": self._settings.session_expiry_s == 0, "properties": properties}

    def _await_answer(self) -> None:
        deadline = paho.time_func() + _ANSWER_TIMEOUT_S
        while self._answer is None:
            left = deadline - paho.time_func()
            if left <= 0:
                self.close()
                raise self._faults.unanswered(f"no answer in {_ANSWER_TIMEOUT_S:g} s")
            sock = self._client.socket()
            if sock is None or (self._serve(sock, min(left, 1.0)) and self._answer is None):
                raise self._faults.unanswered(self._detail)
        if self._answer.is_failure:
            self.close()
            raise self._faults.refused(str(self._answer))

    # -- serving it ------------------------------------------------------------------------

    def _serve(self, sock: Any, timeout: float) -> int:
        ready = self._select(sock, timeout)
        if ready & selectors.EVENT_READ:
            code = self._read(sock)
            if code:
                return code
        if ready & selectors.EVENT_WRITE or self._client.want_write():
            code = int(self._client.loop_write())
            if code:
                return code
        return int(self._client.loop_misc())

    def _select(self, sock: Any, timeout: float) -> int:
        interest = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        pending = _pending(sock)
        poll = select.poll()
        poll.register(sock.fileno(), interest)
        poll.register(self._wake.fileno(), select.POLLIN)
        ready = 0
        for fd, mask in poll.poll(0 if pending else max(0.0, timeout) * 1000.0):
            if fd == self._wake.fileno():
                self._drain_wake()
            else:
                ready |= selectors.EVENT_WRITE if mask & select.POLLOUT else 0
                ready |= selectors.EVENT_READ if mask & ~select.POLLOUT else 0
        return ready | (selectors.EVENT_READ if pending else 0)

    def _read(self, sock: Any) -> int:
        code = int(self._client.loop_read())
        # What TLS has already decrypted makes no socket readable.
        while not code and self._client.socket() is sock and _pending(sock):
            code = int(self._client.loop_read())
        return code

    def _drain_wake(self) -> None:
        try:
            while self._wake.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _check(self, code: int) -> None:
        if code or self._client.socket() is None:
            raise self._loss()

    def _loss(self) -> PublishError:
        if self._goodbye == _TAKEN_OVER:
            return self._faults.taken_over()
        return self._faults.lost(self._goodbye or self._detail)

    # -- paho's callbacks: short, on the thread that turns the loop ------------------------

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, reason: ReasonCode, props: Any) -> None:
        self._answer = reason
        self.receive_maximum = getattr(props, "ReceiveMaximum", _MOST_IN_FLIGHT)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._goodbye = str(reason)

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        self._listener.acknowledged(mid, str(reason) if reason.is_failure else None)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # no topic that we asked for
        self._listener.received(topic, bytes(message.payload), message.retain)

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: List[ReasonCode], _p: Any) -> None:
        topics = self._subscriptions.pop(mid, ())
        refusals = [str(r) for r in reasons if r.is_failure]
        self._listener.subscribed(topics, refusals[0] if refusals else None)

    def _on_log(self, _c: Any, _u: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._detail = text.partition("socket: ")[2] or text


def _without_delay(_client: paho.Client, _data: Any, sock: Any) -> None:
    """Small packets would wait for the acknowledgement of the last one, up to 40 ms each."""
    with contextlib.suppress(OSError):  # a peer that is gone already is met by the next read
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _pending(sock: Any) -> bool:
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """The TLS client that ``tls`` describes.

    Raises:
        ConfigError: A file is missing, or is no certificate or key.
    """
    for name, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if path is not None and not path.is_file():
            raise ConfigError(f"mqtt.tls.{name}: there is no file {path}")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt.tls.ca: {tls.ca} is no PEM certificate: {error}") from error
    context.check_hostname = tls.check_hostname
    if tls.cert is not None:
        try:
            context.load_cert_chain(str(tls.cert), str(tls.key) if tls.key else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"mqtt.tls.cert and mqtt.tls.key do not fit together or are no PEM files: {error}"
            ) from error
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


def password(settings: MqttSettings) -> Optional[str]:
    """The password as it is now; a password file may change while the service runs.

    Raises:
        PublishError: The password file cannot be read.
    """
    if settings.password is not None:
        return settings.password.get_secret_value()
    if settings.password_file is None:
        return None
    try:
        lines = settings.password_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"mqtt.password_file cannot be read: {error}", retry=False) from error
    return lines[0] if lines else ""
