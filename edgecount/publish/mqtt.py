"""Publish to an MQTT broker (3.1.1 or 5): states, statuses, events, aggregates, commands.

    sink = create(settings, ledger, handlers={"reset": ..., "set_occupancy": ..., "reload": ...})
    ledger.listen(on_committed=lambda events: sink.notify())
    sink.start()
    sink.publish_state(snapshot)         # any thread, any rate; the newest goes out
    sink.connected, sink.state, sink.last_error
    sink.stop()                          # last states, then "offline"; within 2 s

One thread of its own connects, sends and listens; it never touches what it publishes.
After every connect all states go out again; events follow from the store's mark on, in
order, each until the broker has acknowledged it. ``docs/mqtt.md`` describes the topics.
"""

import contextlib
import random
import socket
import threading
import time
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set

import structlog

from edgecount.config import MqttSettings, Settings
from edgecount.errors import PublishError
from edgecount.publish import _payloads, homeassistant
from edgecount.publish._backoff import Backoff
from edgecount.publish._commands import Commands, Handler
from edgecount.publish._connection import Connection, tls_context
from edgecount.publish._faults import Faults
from edgecount.publish._mailbox import Letters, Mailbox, Message
from edgecount.publish.base import EventStore, LinkState, PlaceState, Status
from edgecount.publish.outbox import Outbox
from edgecount.records import Aggregate, Snapshot
from edgecount.redact import Redactor

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
# A connection that held for so long was a good one; the next loss starts with a short wait.
_HELD_S = 20.0
_SHORT_LIVES_BEFORE_WARNING = 3
_IDLE_TURN_S = 1.0
_EVENTS_IN_FLIGHT = 128
_STATES_RESERVE = 4
_LETTERS = 1000
_REFUSED_HOLD_S = 30.0
_GOODBYE_S = 1.2
_JOIN_S = 1.9

_log = structlog.get_logger(__name__)

OnChange = Callable[[bool, str], None]


class MqttSink:
    """A :class:`~edgecount.publish.base.Sink` for one broker.

    Args:
        settings: The whole configuration; ``settings.mqtt`` is given.
        store: Committed events; None publishes none.
        handlers: What does the commands, by name; on the sink's thread, in milliseconds.
        on_change: Told ``(connected, last_error)`` when either changes, on that thread.
        clock: Monotonic seconds.
        wall_clock: UTC seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        store: Optional[EventStore],
        handlers: Optional[Mapping[str, Handler]] = None,
        on_change: Optional[OnChange] = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        assert settings.mqtt is not None
        self._mqtt: MqttSettings = settings.mqtt
        self._on_change = on_change or (lambda _connected, _error: None)
        self._clock = clock
        self._redact = Redactor(settings.secrets())
        self.prefix = self._mqtt.prefix.replace("{device}", settings.device)
        self.client_id = self._mqtt.client_id or f"edgecount-{settings.device}"
        self.state: LinkState = "connecting"
        self.last_error = ""

        self._faults = Faults(self._mqtt, self.client_id)
        self._mailbox = Mailbox()
        self._letters = Letters(_LETTERS)
        self._outbox = Outbox(store, clock, self._mqtt.catch_up_per_s) if store else None
        self._commands = Commands(self._mqtt.commands, handlers or {}, clock, wall_clock)
        self._home = (
            homeassistant.Announcer(settings, self.prefix, clock)
            if self._mqtt.homeassistant
            else None
        )
        self._mailbox.set(f"{self.prefix}/status", b"online")
        if self._mqtt.frigate_topics:
            self._mailbox.set(f"{self._mqtt.frigate_prefix}/available", b"online", retain=True)

        self._backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S, random.random)
        self._short_lives = 0
        self._connection: Optional[Connection] = None
        self._topics: Dict[int, str] = {}
        self._events: Dict[int, int] = {}
        self._forbidden: Set[str] = set()
        self._complaint: Optional[PublishError] = None
        self._stopping = threading.Event()
        self._alarm, self._wake_socket = socket.socketpair()
        self._alarm.setblocking(False)
        self._wake_socket.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # -- the sink, from any thread ---------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker takes messages now: it has taken the birth message."""
        return self.state == "connected"

    @property
    def in_flight(self) -> int:
        """Messages that were sent and are not yet acknowledged."""
        return len(self._topics) + len(self._events)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Send the last states and ``offline``, close; returns within 2 s."""
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def notify(self) -> None:
        """There are new events in the store."""
        self._wake()

    def publish_state(self, snapshot: Snapshot) -> None:
        """The newest state of a camera; retained, at most every ``state_interval_s``."""
        self._put(f"{snapshot.camera}/state", snapshot.payload)
        if self._mqtt.frigate_topics:
            self._publish_integers(snapshot)

    def publish_place(self, state: PlaceState) -> None:
        """The newest state of a place; retained, at most every ``state_interval_s``."""
        self._put(f"place/{state.place}/state", lambda: _payloads.place(state))

    def publish_camera_status(self, camera: str, status: Status) -> None:
        """Whether a camera delivers; retained."""
        if self._mailbox.set(f"{self.prefix}/{camera}/status", status.encode("ascii")):
            self._wake()

    def publish_aggregates(self, aggregates: Sequence[Aggregate]) -> None:
        """Periods that have ended; kept in memory while the broker is away, up to a limit."""
        for aggregate in aggregates:
            self._letters.add(
                f"{self.prefix}/aggregate/{aggregate.period}",
                _payloads.encode(_payloads.aggregate(aggregate)),
            )
        self._wake()

    def _put(self, topic: str, payload: Callable[[], Mapping[str, object]]) -> None:
        is_news = self._mailbox.put(
            f"{self.prefix}/{topic}",
            lambda: _payloads.encode(payload()),
            self._mqtt.state_interval_s,
        )
        if is_news:
            self._wake()

    # -- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._live()
            except PublishError as error:
                self._failed(error)
            except Exception as error:
                # The last wall: counts must go on leaving, whatever a library or a broker
                # does. It is logged in full, told in the status, and tried again.
                _log.exception("mqtt_failed")
                self._failed(PublishError(f"publishing failed inside: {error!r}"))
            finally:
                self._connection = None
            if not self._stopping.is_set():
                self._stopping.wait(self._backoff.failed())
        self.state = "stopped"
        self._alarm.close()
        self._wake_socket.close()

    def _live(self) -> None:
        """One connection, from login to loss."""
        connection = Connection(
            self._mqtt,
            self.client_id,
            f"{self.prefix}/status",
            self._faults,
            self,
            self._wake_socket,
        )
        connection.open()
        since = self._clock()
        try:
            self._begin(connection)
            while not self._stopping.is_set():
                self._pump(connection)
                connection.turn(self._wait_s(connection))
                if self._clock() - since > _HELD_S:
                    self._held()
            self._say_goodbye(connection)
        except PublishError as error:
            self._short_lives += self._clock() - since < _HELD_S
            if self._complaint is not None:
                raise self._complaint from error  # that is why, or at least what to do first
            if self._short_lives >= _SHORT_LIVES_BEFORE_WARNING and error.retry:
                raise self._faults.flapping() from error
            raise
        finally:
            connection.close()

    def _begin(self, connection: Connection) -> None:
        self._connection = connection
        self._topics.clear()
        self._events.clear()
        self._forbidden.clear()
        self._letters.rewind()
        self._mailbox.renew()
        if self._outbox:
            self._outbox.rewind()
        topics = [f"{self.prefix}/command/+"] if self._mqtt.commands else []
        if self._home:
            topics += self._home.begin()
        if topics:
            connection.subscribe(topics)

    def _held(self) -> None:
        self._backoff.worked()
        self._short_lives = 0

    def _failed(self, error: PublishError) -> None:
        self._set_state("away" if error.retry else "refused", self._redact(str(error)))

    def _set_state(self, state: LinkState, error: str) -> None:
        if (state, error) == (self.state, self.last_error):
            return
        self.state, self.last_error = state, error
        if state == "connected":
            _log.info("mqtt_connected", broker=f"{self._mqtt.host}:{self._mqtt.port}")
        elif error:
            log = _log.error if state == "refused" else _log.warning
            log("mqtt_disconnected", state=state, reason=error)
        self._on_change(state == "connected", error)

    # -- sending -----------------------------------------------------------------------------

    def _pump(self, connection: Connection) -> None:
        """States first: a backlog never delays them."""
        for message in self._mailbox.take(self._clock(), self._room(connection)):
            self._send(connection, message)
        self._announce_home()
        self._send_letters(connection)
        self._send_events(connection)

    def _send(self, connection: Connection, message: Message) -> None:
        mid = connection.publish(message.topic, message.payload, retain=message.retain)
        self._topics[mid] = message.topic

    def _send_letters(self, connection: Connection) -> None:
        while self._letters and self._room(connection) > 0:
            letter = self._letters.take()
            if letter is None:
                return
            mid = connection.publish(letter.topic, letter.payload, retain=False)
            self._topics[mid] = letter.topic
            self._letters.sent(mid, letter)

    def _send_events(self, connection: Connection) -> None:
        room = self._event_room(connection)
        for event, recovered in self._outbox.take(room) if self._outbox and room else ():
            payload = _payloads.encode(_payloads.event(event, recovered=recovered))
            topic = f"{self.prefix}/{event.camera}/event"
            mid = connection.publish(topic, payload, retain=False)
            self._topics[mid] = topic
            self._events[mid] = event.seq

    def _event_room(self, connection: Connection) -> int:
        """How many events may go out now; the broker's window keeps a reserve for states."""
        if self._outbox is None:
            return 0
        window = min(_EVENTS_IN_FLIGHT, max(1, connection.receive_maximum - _STATES_RESERVE))
        # No waiting for a larger batch: mosquitto's small answers would then be held back by
        # Nagle's algorithm until we send again, and a backlog goes out at a fifth of the rate.
        return max(0, min(window - len(self._events), self._room(connection)))

    def _room(self, connection: Connection) -> int:
        return max(0, connection.receive_maximum - len(self._topics))

    def _wait_s(self, connection: Connection) -> float:
        waits = [self._mailbox.wait_s(self._clock())]
        if self._outbox and self._event_room(connection):
            waits.append(self._outbox.wait_s())
        if self._home:
            waits.append(self._home.wait_s())
        return min([_IDLE_TURN_S] + [w for w in waits if w is not None])

    def _say_goodbye(self, connection: Connection) -> None:
        """Last states, then ``offline``, and wait for the broker to have them."""
        deadline = self._clock() + _GOODBYE_S
        for message in self._mailbox.take(self._clock(), self._room(connection), hurry=True):
            if not message.topic.endswith("/status"):
                self._send(connection, message)
        self._send_letters(connection)
        self._send_events(connection)
        for topic in self._mailbox.statuses():
            self._send(connection, Message(topic, b"offline", retain=True))
        while self._topics and self._clock() < deadline:
            connection.turn(deadline - self._clock())
        self._on_change(False, "")

    # -- what the broker says (Listener) -------------------------------------------------------

    def acknowledged(self, mid: int, refusal: Optional[str]) -> None:
        topic = self._topics.pop(mid, None)
        seq = self._events.pop(mid, None)
        if topic is None:
            return
        self._letters.landed(mid)
        self._mailbox.landed(topic)
        if refusal is not None:
            self._refused(topic, is_event=seq is not None, refusal=refusal)
            return
        if seq is not None and self._outbox:
            self._outbox.landed(seq)
        self._permitted(topic)

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        if self._home and self._home.received(topic, payload, retained):
            return
        start = f"{self.prefix}/command/"
        if topic.startswith(start):
            self._command(topic[len(start) :], payload, retained)

    def subscribed(self, topics: Sequence[str], refusal: Optional[str]) -> None:
        if refusal is not None:
            error = self._faults.not_permitted("subscribe to", ", ".join(topics), refusal)
            self._complain(error, ", ".join(topics))

    def _command(self, name: str, payload: bytes, retained: bool) -> None:
        answer = self._commands.handle(name, payload, retained=retained)
        if answer is not None:
            self._letters.add(f"{self.prefix}/response/{name}", _payloads.encode(answer))

    def _refused(self, topic: str, *, is_event: bool, refusal: str) -> None:
        self._complain(self._faults.not_permitted("publish to", topic, refusal), topic)
        if is_event and self._outbox:
            self._events.clear()
            self._outbox.hold(_REFUSED_HOLD_S)

    def _complain(self, error: PublishError, topic: str) -> None:
        """Logged in, but not allowed to do everything: an error that a person must see."""
        self._forbidden.add(topic)
        self._complaint = error
        self._set_state("refused", self._redact(str(error)))

    def _permitted(self, topic: str) -> None:
        """The broker took a message: with the birth message begins what we call connected."""
        self._forbidden.discard(topic)
        if self._forbidden:
            return
        if topic == f"{self.prefix}/status" or self._complaint is not None:
            self._complaint = None
            self._set_state("connected", "")

    # -- extras --------------------------------------------------------------------------------

    def _announce_home(self) -> None:
        if self._home is None:
            return
        for topic, payload in self._home.due():
            self._mailbox.set(topic, payload)
        if self._home.reborn():
            self._mailbox.renew()

    def _publish_integers(self, snapshot: Snapshot) -> None:
        """Plain counts, on change, on the topics that Frigate's dashboards read."""
        counts: List[tuple[str, int]] = [(snapshot.camera, snapshot.visible)]
        counts += [(name, zone.now) for name, zone in snapshot.zones.items()]
        for name, count in counts:
            for kind in ("person", "all"):
                topic = f"{self._mqtt.frigate_prefix}/{name}/{kind}"
                self._mailbox.set(topic, b"%d" % count, retain=False)

    def _wake(self) -> None:
        # Blocked means that it is awake: the last alarms have not been read. Any other error
        # means that it has ended.
        with contextlib.suppress(OSError):
            self._alarm.send(b"!")


def create(
    settings: Settings,
    store: Optional[EventStore],
    handlers: Optional[Mapping[str, Handler]] = None,
    on_change: Optional[OnChange] = None,
) -> MqttSink:
    """The sink that ``settings.mqtt`` describes.

    Raises:
        ConfigError: A certificate or key file is missing or wrong.
    """
    assert settings.mqtt is not None, "without a broker there is no sink"
    if settings.mqtt.tls is not None:
        tls_context(settings.mqtt.tls)
    return MqttSink(settings, store, handlers, on_change)
