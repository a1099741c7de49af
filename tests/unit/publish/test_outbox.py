from typing import List, Tuple

from hypothesis import given
from hypothesis import strategies as st

from edgecount.publish.outbox import Outbox
from edgecount.records import CountEvent


class Store:
    """An event store in a list."""

    def __init__(self, count: int = 0) -> None:
        self.seq = 0
        self.acknowledged = 0
        self.add(count)

    def add(self, count: int) -> None:
        self.seq += count

    def fetch(self, after: int, limit: int) -> List[CountEvent]:
        numbers = range(max(after, self.acknowledged) + 1, self.seq + 1)[:limit]
        return [
            CountEvent("line", "door", "a", "in", n, n, 0.0, id=f"{n:026d}", seq=n) for n in numbers
        ]

    def acknowledge(self, seq: int) -> None:
        assert self.acknowledged <= seq <= self.seq
        self.acknowledged = seq


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def outbox_over(store: Store, pace: float = 1e9) -> Tuple[Outbox, Clock]:
    clock = Clock()
    outbox = Outbox(store, clock, pace)
    outbox.rewind()
    clock.now += 1.0
    return outbox, clock


def test_live_events_are_not_recovered() -> None:
    store = Store()
    outbox, _ = outbox_over(store)
    assert outbox.take(10) == []
    store.add(3)
    assert [(o.event.seq, o.recovered) for o in outbox.take(10)] == [(n, False) for n in (1, 2, 3)]


def test_a_backlog_is_recovered_and_what_follows_it_is_not() -> None:
    store = Store(3)
    outbox, clock = outbox_over(store)
    assert [(o.event.seq, o.recovered) for o in outbox.take(10)] == [(n, True) for n in (1, 2, 3)]
    clock.now += 1.0
    assert outbox.take(10) == []
    store.add(1)
    assert [(o.event.seq, o.recovered) for o in outbox.take(10)] == [(4, False)]


def test_a_backlog_is_paced_and_live_events_are_not() -> None:
    store = Store(1000)
    outbox, clock = outbox_over(store, pace=100.0)
    sent = len(outbox.take(1000))
    for _ in range(100):
        clock.now += 0.01
        sent += len(outbox.take(1000))
    assert 100 <= sent <= 111
    store.acknowledge(1000)
    outbox.rewind()
    store.add(500)
    assert sum(len(outbox.take(1000)) for _ in range(3)) == 500


def test_the_mark_moves_only_over_what_is_done_in_order() -> None:
    store = Store(5)
    outbox, _ = outbox_over(store)
    assert len(outbox.take(5)) == 5
    for landed, mark in ((2, 0), (3, 0), (1, 3), (5, 3), (4, 5)):
        outbox.landed(landed)
        assert store.acknowledged == mark
    assert outbox.in_flight == 0


def test_an_answer_from_an_earlier_connection_moves_nothing() -> None:
    store = Store(5)
    outbox, _ = outbox_over(store)
    outbox.take(5)
    outbox.rewind()
    outbox.landed(1)
    assert store.acknowledged == 0


def test_a_refusal_holds_events_back_for_a_while() -> None:
    store = Store(2)
    outbox, clock = outbox_over(store)
    outbox.take(2)
    outbox.hold(30.0)
    assert outbox.take(2) == []
    assert outbox.wait_s() == 30.0
    clock.now += 31.0
    assert [o.event.seq for o in outbox.take(2)] == [1, 2]


def test_events_that_were_given_up_meanwhile_are_skipped() -> None:
    store = Store(10)
    outbox, _ = outbox_over(store)
    store.acknowledge(7)
    assert [o.event.seq for o in outbox.take(10)] == [8, 9, 10]


def test_an_older_file_that_comes_back_is_sent_from_its_mark_on() -> None:
    store = Store(5)
    outbox, clock = outbox_over(store)
    for sent in outbox.take(5):
        outbox.landed(sent.event.seq)
    clock.now += 1.0
    assert outbox.take(5) == []
    store.acknowledged, store.seq = 2, 7
    assert outbox.take(5) == []  # the pace begins anew
    clock.now += 1.0
    assert [o.event.seq for o in outbox.take(5)] == [3, 4, 5, 6, 7]


@given(st.lists(st.sampled_from(["add", "take", "land", "cut"]), max_size=200), st.randoms())
def test_a_subscriber_that_drops_known_ids_sees_all_once_and_in_order(steps, random) -> None:  # type: ignore[no-untyped-def]
    """Whatever is lost when: messages before a cut may arrive without their answer."""
    store = Store()
    outbox, clock = outbox_over(store)
    flying: List[int] = []
    arrived: List[int] = []
    for step in [*steps, "cut", *["take", "land"] * 400]:
        clock.now += 1.0
        if step == "add":
            store.add(random.randint(1, 5))
        elif step == "take":
            flying += [o.event.seq for o in outbox.take(random.randint(1, 5))]
        elif step == "land" and flying:
            arrived.append(flying[0])
            outbox.landed(flying.pop(0))
        elif step == "cut":
            arrived += flying[: random.randint(0, len(flying))]  # delivered, answer lost
            flying.clear()
            outbox.rewind()
    seen: List[int] = []
    for seq in arrived:
        if seq not in seen:
            seen.append(seq)
    assert seen == list(range(1, store.seq + 1))
    assert store.acknowledged == store.seq
