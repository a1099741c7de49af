"""Reloads and ends, with a scripted service in place of the real one."""

from types import SimpleNamespace

import pytest

from edgecount.config import Settings
from edgecount.errors import DeviceLostError, EngineError
from edgecount.runtime import runner as module
from edgecount.runtime.plan import Plan, default_settings
from edgecount.runtime.runner import Losses, Runner, _same_ledger
from edgecount.runtime.systemd import Notifier


class ScriptedService:
    """Turns as often as ``script`` says; an exception in it is raised."""

    def __init__(self, script):
        self.settings = default_settings("clip.avi")
        self.plan = SimpleNamespace(model=None)
        self.calls = []
        self._script = iter(script)

    def with_plan(self, plan):
        self.reopens = plan.reopens
        return self

    def start(self):
        self.calls.append("start")

    def turn(self):
        step = next(self._script)
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step()
            return True
        return step

    def stop(self, *, keep_ledger=False, because=None):
        self.calls.append(f"stop because {because}" if because else "stop")

    def failures(self):
        return []


@pytest.fixture
def run(monkeypatch):
    """Runs scripted services one after the other, as reloads make them."""

    def start(*services):
        waiting = iter(services)
        settings = services[0].settings
        plan = Plan(settings, None, (), ())
        monkeypatch.setattr(module, "prepare", lambda *_: plan)
        monkeypatch.setattr(module, "Service", lambda plan, *_, **__: next(waiting).with_plan(plan))
        monkeypatch.setattr(module, "TURN_S", 0.0)
        Runner(lambda: settings, notifier=Notifier(None)).run()

    return start


def test_files_that_have_ended_end_the_run_and_stop_the_service_once(run):
    service = ScriptedService([True, True, False])
    run(service)
    assert service.calls == ["start", "stop"]


def test_a_failure_after_a_reload_stops_the_service_that_runs_and_no_other(monkeypatch, run):
    runners = []
    init = Runner.__init__

    def remember(self, *arguments, **options):
        runners.append(self)
        init(self, *arguments, **options)

    monkeypatch.setattr(Runner, "__init__", remember)
    old = ScriptedService([lambda: runners[0].reload()])
    new = ScriptedService([EngineError("the device is gone")])
    with pytest.raises(EngineError, match="device is gone"):
        run(old, new)
    assert old.calls == ["start", "stop"]
    assert new.calls == ["start", "stop"]


def test_a_lost_device_is_opened_again_and_the_third_time_in_a_minute_is_for_systemd(run):
    services = [ScriptedService([True, DeviceLostError("sticky")]) for _ in range(3)]
    with pytest.raises(DeviceLostError, match="sticky"):
        run(*services)
    again = ["start", "stop because the device was lost: sticky"]
    assert [s.calls for s in services] == [again, again, ["start", "stop"]]


def test_a_device_that_is_lost_once_counts_on(run):
    lost, well = ScriptedService([DeviceLostError("x")]), ScriptedService([True, False])
    run(lost, well)
    assert well.calls == ["start", "stop"]
    assert (lost.reopens, well.reopens) == (False, True)


def test_a_device_that_this_process_cannot_open_again_is_for_systemd(run):
    lost, dead = ScriptedService([DeviceLostError("x")]), ScriptedService([])
    dead.start = lambda: (_ for _ in ()).throw(DeviceLostError("sticky"))
    with pytest.raises(DeviceLostError, match="sticky"):
        run(lost, dead)
    assert dead.calls == ["stop"]


@pytest.mark.parametrize(
    ("times", "verdicts"),
    [
        ([0, 10, 59], [True, True, False]),
        ([0, 10, 61], [True, True, True]),
        ([0, 50, 100, 105], [True, True, True, False]),
    ],
)
def test_losses_are_counted_within_a_minute(times, verdicts):
    losses = Losses()
    assert [losses.again(float(t)) for t in times] == verdicts


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"device": "hall"}, True),
        ({"ledger": {"commit_ms": 500}}, False),
        ({"mqtt": {"host": "broker"}}, False),
        ({"reset": {"at": "05:00", "timezone": "Europe/Berlin"}}, True),
        ({"reset": {"at": "04:00", "timezone": "Europe/Lisbon"}}, False),
    ],
)
def test_a_ledger_goes_on_only_where_nothing_that_it_was_opened_with_changes(change, same):
    before = {
        "cameras": [{"name": "door", "source": "clip.avi"}],
        "reset": {"at": "04:00", "timezone": "Europe/Berlin"},
    }
    old, new = (Settings.model_validate(d) for d in (before, {**before, **change}))
    assert _same_ledger(old, new) is same
