import threading
import time
from typing import List

from support.capture import frame

from edgecount.capture import SlotGroup
from edgecount.records import Frame


def indices(frames: "List[Frame]") -> List[int]:
    return [f.info.index for f in frames]


def test_a_live_slot_keeps_the_newest_and_counts_the_dropped() -> None:
    slot = SlotGroup().add()
    for index in range(5):
        assert slot.put(frame(index), 0.0)
    taken = slot.take(0.0)
    assert taken is not None
    assert taken.info.index == 4
    assert slot.dropped == 4
    assert slot.take(0.0) is None


def test_a_deep_slot_keeps_the_order_and_refuses_when_full() -> None:
    slot = SlotGroup().add(depth=3)
    assert [slot.put(frame(i), 0.0) for i in range(4)] == [True, True, True, False]
    assert [slot.take(0.0).info.index for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    assert slot.dropped == 0


def test_putting_goes_on_when_room_appears() -> None:
    slot = SlotGroup().add(depth=1)
    slot.put(frame(0), 0.0)
    done: List[bool] = []
    putter = threading.Thread(target=lambda: done.append(slot.put(frame(1), 5.0)))
    putter.start()
    assert slot.take(1.0) is not None
    putter.join(5.0)
    assert done == [True]
    assert indices([slot.take(0.0)]) == [1]  # type: ignore[list-item]


def test_cameras_are_taken_in_turn() -> None:
    group = SlotGroup()
    slots = [group.add(depth=10) for _ in range(3)]
    for index in range(4):
        slots[0].put(frame(index), 0.0)
    slots[1].put(frame(100), 0.0)
    slots[2].put(frame(200), 0.0)
    numbers = [group.take(0.0)[0] for _ in range(6)]  # type: ignore[index]
    assert numbers == [0, 1, 2, 0, 0, 0]


def test_one_thread_waits_for_any_camera() -> None:
    group = SlotGroup()
    group.add()
    second = group.add()
    got: List[int] = []

    def wait() -> None:
        taken = group.take(5.0)
        if taken:
            got.append(taken[0])

    waiter = threading.Thread(target=wait)
    waiter.start()
    second.put(frame(7), 0.0)
    waiter.join(5.0)
    assert got == [1]


def test_wake_ends_a_wait() -> None:
    group = SlotGroup()
    group.add()
    returned = threading.Event()
    started = threading.Event()

    def wait() -> None:
        started.set()
        assert group.take(30.0) is None
        returned.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    started.wait(5.0)
    while not returned.wait(0.01):
        group.wake()
    waiter.join(5.0)


def test_a_cleared_slot_is_empty() -> None:
    slot = SlotGroup().add(depth=2)
    slot.put(frame(0), 0.0)
    slot.clear()
    assert len(slot) == 0
    assert slot.put(frame(1), 0.0)


def test_a_batch_holds_one_frame_of_each_camera_in_turn() -> None:
    group = SlotGroup()
    first, second, third = (group.add(depth=3) for _ in range(3))
    for slot, index in ((first, 0), (first, 1), (second, 10), (third, 20)):
        assert slot.put(frame(index), 0.0)
    assert [f.info.index for f in group.take_batch(2, 0.0, 0.0)] == [0, 10]
    assert [f.info.index for f in group.take_batch(2, 0.0, 0.0)] == [20, 1]
    assert group.take_batch(2, 0.0, 0.0) == []
    assert group.taken == 4


def test_a_batch_waits_for_other_cameras_only_so_long() -> None:
    group = SlotGroup()
    here, there = group.add(), group.add()
    here.put(frame(1), 0.0)
    late = threading.Timer(0.05, lambda: there.put(frame(2), 0.0))
    late.start()
    assert [f.info.index for f in group.take_batch(8, 1.0, 5.0)] == [1, 2]
    here.put(frame(3), 0.0)
    began = time.monotonic()
    assert [f.info.index for f in group.take_batch(8, 1.0, 0.05)] == [3]
    assert time.monotonic() - began < 1.0
