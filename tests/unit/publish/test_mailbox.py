from edgecount.publish._mailbox import Letters, Mailbox, Message


def topics(box: Mailbox, now: float, **options: bool) -> list:
    return [(m.topic, m.payload) for m in box.take(now, 100, **options)]


def test_only_the_newest_state_goes_out() -> None:
    box = Mailbox()
    for n in range(5):
        box.put("state", lambda n=n: b"%d" % n, 1.0)
    assert topics(box, 0.0) == [("state", b"4")]
    assert topics(box, 10.0) == []


def test_states_keep_their_distance() -> None:
    box = Mailbox()
    box.put("state", lambda: b"1", 1.0)
    topics(box, 0.0)
    box.landed("state")
    box.put("state", lambda: b"2", 1.0)
    assert topics(box, 0.5) == []
    assert box.wait_s(0.5) == 0.5
    assert topics(box, 1.0) == [("state", b"2")]


def test_a_state_waits_for_the_answer_to_the_last() -> None:
    box = Mailbox()
    box.put("state", lambda: b"1", 0.0)
    topics(box, 0.0)
    box.put("state", lambda: b"2", 0.0)
    assert topics(box, 5.0) == []
    assert box.wait_s(5.0) is None
    box.landed("state")
    assert topics(box, 5.0) == [("state", b"2")]


def test_values_go_out_when_they_change() -> None:
    box = Mailbox()
    box.set("status", b"online")
    assert topics(box, 0.0) == [("status", b"online")]
    box.landed("status")
    box.set("status", b"online")
    assert topics(box, 1.0) == []
    box.set("status", b"degraded")
    assert topics(box, 1.0) == [("status", b"degraded")]


def test_everything_goes_out_again_at_a_connect() -> None:
    box = Mailbox()
    box.set("status", b"online")
    box.put("state", lambda: b"1", 60.0)
    topics(box, 0.0)
    box.renew()
    assert sorted(topics(box, 1.0)) == [("state", b"1"), ("status", b"online")]


def test_the_longest_waiting_goes_first_when_room_is_short() -> None:
    box = Mailbox()
    for topic in "abc":
        box.put(topic, lambda: b"", 0.0)
    assert [m.topic for m in box.take(0.0, 2)] == ["a", "b"]
    for topic in "abc":
        box.landed(topic)
        box.put(topic, lambda: b"", 0.0)
    assert [m.topic for m in box.take(0.0, 2)] == ["c", "a"]


def test_the_last_states_go_out_in_a_hurry() -> None:
    box = Mailbox()
    box.put("state", lambda: b"1", 60.0)
    topics(box, 0.0)
    box.put("state", lambda: b"2", 60.0)
    assert topics(box, 1.0, hurry=True) == [("state", b"2")]


def test_letters_are_kept_until_they_are_answered() -> None:
    letters = Letters(10)
    letters.add("a", b"1")
    letters.add("a", b"2")
    for mid in (1, 2):
        letters.sent(mid, letters.take() or Message("", b"", retain=False))
    assert letters.take() is None
    assert letters.landed(1)
    assert not letters.landed(99)
    letters.rewind()
    second = letters.take()
    assert second is not None
    assert second.payload == b"2"


def test_letters_are_bounded() -> None:
    letters = Letters(3)
    for n in range(10):
        letters.add("a", b"%d" % n)
    kept = [letters.take() for _ in range(3)]
    assert [m.payload for m in kept if m] == [b"7", b"8", b"9"]
