import time
from dataclasses import replace

import pytest

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.switching import SwitchingBackend
from edgecount.infer.tensorrt.cache import Lookup
from edgecount.infer.tensorrt.keeper import EXTENSION_S, EngineKeeper, Outcome, Parts, attend


class Named:
    precision, depth, max_batch = "int8", 1, 1

    def __init__(self, name):
        self.name = name
        self.closed = 0

    def submit(self, batch):
        """Takes it."""

    def collect(self, timeout):
        return None

    def reset(self, camera):
        """Nothing to forget."""

    def close(self):
        self.closed += 1


class World:
    """A cache, builds that go as told, and a record of what happened."""

    def __init__(self, found, *, polls=(), after=None, standby=True, broken=()):
        self.found = found
        self.polls = list(polls)
        self.after = after
        self.broken = broken
        self.events = []
        self.backends = []
        parts = Parts(
            lambda: self.found,
            self.build,
            self.open,
            (lambda: self.make("cpu")) if standby else None,
            lambda seconds: self.events.append(("extend", seconds)),
            lambda seconds: self.events.append(("sleep", seconds)),
        )
        self.keeper = EngineKeeper(parts)

    def make(self, name):
        self.events.append(("open", name))
        if name in self.broken:
            raise self.broken[name]
        self.backends.append(Named(name))
        return self.backends[-1]

    def open(self, entry):
        return self.make(entry)

    def build(self):
        self.events.append(("build",))
        return self

    def poll(self):
        outcome = self.polls.pop(0)
        if outcome is not None and outcome.error is None and self.after is not None:
            self.found = self.after
        return outcome

    def stop(self):
        self.events.append(("stop",))


DONE = Outcome()


def test_an_engine_that_is_there_counts_at_once_and_nothing_is_built():
    world = World(Lookup("trt", None))
    backend = world.keeper.start()
    assert backend is world.backends[0]
    assert world.events == [("open", "trt")]
    assert world.keeper.state == "ready"
    assert world.keeper.turn() is False


def test_a_missing_engine_is_built_while_the_standby_counts():
    after = Lookup("new", None)
    world = World(Lookup(None, "no engine yet"), polls=[None, None, DONE], after=after)
    backend = world.keeper.start()
    assert isinstance(backend, SwitchingBackend)
    assert backend.name == "cpu"
    assert world.keeper.state == "building"
    assert [world.keeper.turn() for _ in range(2)] == [True, True]
    assert world.keeper.turn() is False
    assert world.keeper.state == "ready"
    backend.submit([])
    assert backend.name == "new"
    assert world.events == [("build",), ("open", "cpu"), ("open", "new")]
    assert world.keeper.turn() is False


def test_the_last_good_engine_counts_while_its_successor_is_built():
    after = Lookup("new", None)
    world = World(Lookup("old", "the recipe has changed"), polls=[DONE], after=after)
    backend = world.keeper.start()
    assert backend.name == "old"
    world.keeper.turn()
    backend.submit([])
    assert backend.name == "new"
    assert ("open", "cpu") not in world.events


def test_an_engine_that_does_not_open_is_built_again():
    broken = {"bad": EngineError("Serialization assertion failed")}
    world = World(Lookup("bad", None), polls=[DONE], after=Lookup("new", None), broken=broken)
    backend = world.keeper.start()
    assert backend.name == "cpu"
    world.keeper.turn()
    backend.submit([])
    assert backend.name == "new"


def test_a_build_that_fails_changes_nothing():
    world = World(Lookup(None, "no engine yet"), polls=[Outcome("no space left on device")])
    backend = world.keeper.start()
    assert world.keeper.turn() is False
    assert world.keeper.state == "failed"
    backend.submit([])
    assert backend.name == "cpu"
    assert world.keeper.turn() is False


def test_a_built_engine_that_does_not_open_changes_nothing():
    world = World(
        Lookup("old", "the model has changed"),
        polls=[DONE],
        after=Lookup("new", None),
        broken={"new": EngineError("out of memory")},
    )
    backend = world.keeper.start()
    world.keeper.turn()
    backend.submit([])
    assert backend.name == "old"
    assert world.keeper.state == "failed"


def test_without_a_standby_the_start_waits_and_says_so_to_the_service_manager():
    after = Lookup("new", None)
    world = World(
        Lookup(None, "no engine yet"), polls=[None, None, DONE], after=after, standby=False
    )
    assert world.keeper.start().name == "new"
    assert world.events == [
        ("build",),
        ("extend", EXTENSION_S),
        ("sleep", 1.0),
        ("extend", EXTENSION_S),
        ("sleep", 1.0),
        ("extend", EXTENSION_S),
        ("open", "new"),
    ]


def test_without_a_standby_a_failed_build_ends_the_start():
    world = World(Lookup(None, "none"), polls=[Outcome("unsupported operator")], standby=False)
    with pytest.raises(EngineError, match="could not be built: unsupported operator"):
        world.keeper.start()


def test_a_build_that_leaves_no_engine_is_told():
    world = World(Lookup(None, "none"), polls=[DONE], standby=False)
    with pytest.raises(EngineError, match="not in the cache"):
        world.keeper.start()


def test_a_lost_device_is_no_reason_to_build():
    world = World(Lookup("trt", None), broken={"trt": DeviceLostError("gone")})
    with pytest.raises(DeviceLostError):
        world.keeper.start()
    assert ("build",) not in world.events


def test_closing_stops_the_build():
    world = World(Lookup(None, "none"), polls=[None])
    backend = world.keeper.start()
    backend.close()
    assert ("stop",) in world.events
    assert world.backends[0].closed == 1


def test_an_engine_that_comes_after_the_end_is_closed():
    world = World(Lookup(None, "none"), polls=[DONE], after=Lookup("new", None))
    world.keeper.start().close()
    world.keeper.turn()
    assert [b.closed for b in world.backends] == [1, 1]


def test_a_standby_that_cannot_be_made_stops_the_build():
    world = World(Lookup(None, "none"), broken={"cpu": EngineError("no")})
    with pytest.raises(EngineError, match="no"):
        world.keeper.start()
    assert world.events[-1] == ("stop",)


def test_a_thread_attends_to_the_end():
    world = World(Lookup(None, "none"), polls=[None, DONE], after=Lookup("new", None))
    backend = world.keeper.start()
    thread = attend(world.keeper, 0.01)
    thread.join(5.0)
    assert not thread.is_alive()
    backend.submit([])
    assert backend.name == "new"


def test_a_cached_engine_is_there_within_two_seconds():
    world = World(Lookup("trt", None))
    begun = time.perf_counter()
    world.keeper.start()
    assert time.perf_counter() - begun < 2.0


def test_a_start_that_is_given_up_while_it_waits_stops_the_build():
    world = World(Lookup(None, "none"), polls=[None], standby=False)

    def interrupted(seconds):
        raise KeyboardInterrupt

    world.keeper._parts = replace(world.keeper._parts, sleep=interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.keeper.start()
    assert world.events[-1] == ("stop",)
