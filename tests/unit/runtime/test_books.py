"""Ledger, places and sink in step."""

import time

import pytest

from edgecount.config import Settings
from edgecount.errors import ConfigError
from edgecount.observe.metrics import Metrics
from edgecount.records import CountEvent, Snapshot
from edgecount.runtime.books import Books


class RecordingSink:
    connected, state, last_error = True, "connected", ""

    def __init__(self):
        self.places, self.states, self.statuses, self.calls = [], [], [], []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def notify(self):
        self.calls.append("notify")

    def publish_state(self, snapshot):
        self.states.append(snapshot)

    def publish_camera_status(self, camera, status):
        self.statuses.append((camera, status))

    def publish_place(self, state):
        self.places.append(state)

    def publish_aggregates(self, aggregates):
        pass


def settings(**changes):
    line = {"name": "entrance", "from": [0, 0.5], "to": [1, 0.5]}
    return Settings.model_validate(
        {
            "cameras": [{"name": "door", "source": "clip.avi", "lines": [line]}],
            "places": {"hall": {"in": ["door.entrance"]}},
            "ledger": {"enabled": False},
            "mqtt": {"host": "127.0.0.1"},
            **changes,
        }
    )


def crossing(direction):
    return CountEvent("line", "door", "entrance", direction, 1, 0, time.time())


@pytest.fixture
def books(request):
    made = Books(settings(**getattr(request, "param", {})), Metrics())
    yield made
    made.ledger.close()


def gauge(books, name, **labels):
    return books._metrics.registry.get_sample_value(f"edgecount_{name}", labels)


def test_events_move_places_totals_and_metrics(books):
    sink = RecordingSink()
    books.start(sink)
    books.record([crossing("in"), crossing("in"), crossing("out")])
    assert books.occupancy() == {"hall": 1}
    assert books.totals("door").lines["entrance"].into == 2
    assert gauge(books, "occupancy", place="hall") == 1
    books.publish_places()
    assert (sink.places[-1].occupancy, sink.places[-1].into, sink.places[-1].out) == (1, 2, 1)


def test_a_place_is_published_when_it_changed_or_its_trust_did(books):
    sink = RecordingSink()
    books.start(sink)
    books.publish_places()
    first = len(sink.places)
    books.publish_places()
    assert len(sink.places) == first == 1
    books.publish_places(("ledger",))
    assert sink.places[-1].degraded == ("ledger",)


def test_committed_events_wake_the_sink(books):
    sink = RecordingSink()
    books.start(sink)
    books.record([crossing("in")])
    assert books.ledger.flush()
    assert "notify" in sink.calls


def test_a_reset_zeroes_places_and_totals(books):
    books.start(None)
    books.record([crossing("in")])
    books.reset(time.time())
    assert books.occupancy() == {"hall": 0}
    assert gauge(books, "occupancy", place="hall") == 0


def test_occupancy_can_be_corrected_and_an_unknown_place_is_named(books):
    books.start(None)
    books.set_occupancy("hall", 7)
    assert books.occupancy() == {"hall": 7}
    with pytest.raises(ConfigError, match="hall"):
        books.set_occupancy("hal", 7)


def test_stop_says_the_last_words_before_the_ledger_closes(books):
    sink = RecordingSink()
    books.start(sink)
    books.record([crossing("in")])
    books.publish(Snapshot("door", 0.0, 0, 0), "offline")
    books.stop()
    assert sink.calls[-1] == "stop"
    assert sink.places[-1].occupancy == 1
    assert sink.statuses == [("door", "offline")]


def test_a_kept_ledger_goes_on_in_the_next_books(books):
    books.start(None)
    books.record([crossing("in")])
    books.stop(keep_ledger=True)
    following = Books(settings(), Metrics(), books.ledger)
    following.start(None)
    assert following.occupancy() == {"hall": 1}
    assert following.totals("door").lines["entrance"].into == 1


@pytest.mark.parametrize("books", [{"reset": {"at": "00:00"}}], indirect=True)
def test_a_daily_reset_is_due_once(books):
    books.start(None)
    books.reset(time.time() - 2 * 86_400)
    due = books.due()
    assert due is not None
    books.reset(due.at)
    assert books.due() is None
