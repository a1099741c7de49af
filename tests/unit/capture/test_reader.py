import threading
import time
from typing import Any, Callable, List

import pytest
import structlog
from support.capture import FakeClock, ScriptedSource, frame

from edgecount.capture import Reader, Slot, SlotGroup, State, left_behind
from edgecount.capture._backoff import Backoff
from edgecount.errors import SourceError

LONG = 10.0


def make(source: ScriptedSource, slot: Slot, **options: Any) -> Reader:
    options.setdefault("clock", FakeClock())
    options.setdefault("backoff", Backoff(uniform=lambda: 1.0))
    return Reader("door", source, slot, **options)


def run_to_the_end(reader: Reader) -> None:
    reader.start()
    wait_for(lambda: reader.state in (State.ENDED, State.FAILED))
    assert reader.stop(LONG)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_file_is_delivered_whole_and_in_order() -> None:
    group = SlotGroup()
    slot = group.add(depth=2)
    source = ScriptedSource([frame(i) for i in range(50)] + [None], live=False)
    reader = make(source, slot, on_change=group.wake)
    reader.start()
    taken: List[int] = []
    while not reader.finished:
        got = group.take(0.1)
        if got:
            taken.append(got[1].info.index)
    assert taken == list(range(50))
    assert reader.state is State.ENDED
    assert reader.captured == 50
    assert reader.dropped == 0
    assert source.closed >= 1


def test_a_live_camera_drops_what_nobody_takes() -> None:
    slot = SlotGroup().add()
    reader = make(ScriptedSource([frame(i) for i in range(20)] + [None]), slot)
    run_to_the_end(reader)
    assert reader.captured == 20
    assert reader.dropped == 19
    assert not reader.finished or len(slot) == 0


def test_a_lost_stream_is_opened_again() -> None:
    states: List[State] = []
    slot = SlotGroup().add()
    lost = SourceError("the stream broke off")
    source = ScriptedSource([frame(0), lost, frame(1), None])
    clock = FakeClock()
    reader = make(source, slot, clock=clock, on_change=lambda: states.append(reader.state))
    run_to_the_end(reader)
    assert source.opened == 2
    assert reader.reconnects == 1
    assert states == [State.ONLINE, State.OFFLINE, State.ONLINE, State.ENDED]
    assert clock.waits == [0.5]


def test_waits_grow_while_a_camera_is_away_and_start_over_when_it_is_well() -> None:
    clock = FakeClock()
    away = [SourceError("away") for _ in range(4)]

    def age() -> None:
        clock.now += 6.0

    script = [frame(0), age, frame(1), SourceError("lost"), frame(2), None]
    reader = make(ScriptedSource(script, opens=away), SlotGroup().add(), clock=clock)
    run_to_the_end(reader)
    # Slices of half a second: 0.5, 1, 2, 2, and after six good seconds 0.5 again.
    assert sum(clock.waits) == pytest.approx(0.5 + 1.0 + 2.0 + 2.0 + 0.5)
    assert max(clock.waits) <= 0.5


def test_an_error_may_ask_for_more_patience() -> None:
    clock = FakeClock()
    refused = SourceError("wrong password", retry_after=30.0)
    reader = make(ScriptedSource([None], opens=[refused]), SlotGroup().add(), clock=clock)
    run_to_the_end(reader)
    assert sum(clock.waits) == pytest.approx(30.0)


def test_an_error_that_cannot_be_mended_ends_it() -> None:
    source = ScriptedSource([], opens=[SourceError("no such file", retry=False)])
    reader = make(source, SlotGroup().add())
    run_to_the_end(reader)
    assert reader.state is State.FAILED
    assert reader.error == "no such file"
    assert reader.finished
    assert source.opened == 1


def test_the_same_error_is_logged_once() -> None:
    away = [SourceError("away") for _ in range(5)]
    with structlog.testing.capture_logs() as logs:
        run_to_the_end(make(ScriptedSource([None], opens=away), SlotGroup().add()))
    assert [entry.get("error") for entry in logs].count("away") == 1


def test_the_error_is_forgotten_when_frames_come() -> None:
    source = ScriptedSource([frame(0), None], opens=[SourceError("away")])
    reader = make(source, SlotGroup().add())
    run_to_the_end(reader)
    assert reader.error == ""


def test_it_beats_while_the_camera_is_away() -> None:
    beats: List[int] = []
    away = [SourceError("away", retry_after=3.0)]
    source = ScriptedSource([None], opens=list(away))
    reader = make(source, SlotGroup().add(), beat=lambda: beats.append(1))
    run_to_the_end(reader)
    assert len(beats) >= 6  # every half second of the three


def test_a_camera_that_goes_silent_is_stale_although_its_read_hangs() -> None:
    clock = FakeClock()
    source = ScriptedSource([frame(0)])  # then its read hangs
    reader = make(source, SlotGroup().add(), clock=clock, stale_s=3.0, hang_s=20.0)
    reader.start()
    wait_for(lambda: reader.state is State.ONLINE and not source.script)
    clock.now += 2.9
    assert reader.state is State.ONLINE
    clock.now += 0.2
    assert reader.state is State.STALE
    assert not reader.hung
    clock.now += 20.0
    wait_for(lambda: reader.hung)
    assert reader.stop(LONG)


def test_stop_does_not_wait_for_a_read_that_hangs() -> None:
    release = threading.Event()

    class Hanging(ScriptedSource):
        def read(self) -> None:
            release.wait(LONG)

        def interrupt(self) -> None:
            pass

    reader = make(Hanging([]), SlotGroup().add())  # type: ignore[arg-type]
    reader.start()
    wait_for(lambda: "capture-door" in left_behind())
    began = time.monotonic()
    assert not reader.stop(0.1)
    assert time.monotonic() - began < 1.0
    release.set()
    assert reader.stop(LONG)
    assert "capture-door" not in left_behind()


def test_stop_ends_a_wait_for_room() -> None:
    slot = SlotGroup().add(depth=1)
    source = ScriptedSource([frame(i) for i in range(9)], live=False)
    reader = make(source, slot)
    reader.start()
    wait_for(lambda: reader.captured == 2)
    assert reader.stop(LONG)


def test_stop_before_start() -> None:
    assert make(ScriptedSource([]), SlotGroup().add()).stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_error_fails_the_camera_and_is_not_swallowed() -> None:
    seen: List[BaseException] = []
    before = threading.excepthook
    threading.excepthook = lambda args: seen.append(args.exc_value)  # type: ignore[arg-type,assignment]
    try:
        source = ScriptedSource([ZeroDivisionError("a bug")])
        reader = make(source, SlotGroup().add())
        run_to_the_end(reader)
    finally:
        threading.excepthook = before
    assert reader.state is State.FAILED
    assert "ZeroDivisionError" in reader.error
    assert isinstance(seen[0], ZeroDivisionError)
    assert source.closed >= 1


@pytest.mark.parametrize(("live", "expected"), [(True, [0.5]), (False, [])])
def test_a_live_frame_is_timed_from_its_arrival(live: bool, expected: List[float]) -> None:
    clock, times = FakeClock(), []
    arrived = clock.monotonic() + 1.5

    def read_slowly() -> None:
        clock.now += 2.0

    source = ScriptedSource([read_slowly, frame(0, time=arrived), None], live=live)
    slot = SlotGroup().add(None if live else 3)
    run_to_the_end(make(source, slot, clock=clock, timer=times.append))
    assert times == pytest.approx(expected)
