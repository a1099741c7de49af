"""Reloads and ends, with a scripted service in place of the real one."""

from types import SimpleNamespace

import pytest

from edgecount.errors import EngineError
from edgecount.runtime import runner as module
from edgecount.runtime.plan import default_settings
from edgecount.runtime.runner import Runner
from edgecount.runtime.systemd import Notifier


class ScriptedService:
    """Turns as often as ``script`` says; an exception in it is raised."""

    def __init__(self, script):
        self.settings = default_settings("clip.avi")
        self.plan = SimpleNamespace(model=None)
        self.calls = []
        self._script = iter(script)

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

    def stop(self, *, keep_ledger=False):
        self.calls.append("stop")

    def failures(self):
        return []


@pytest.fixture
def run(monkeypatch):
    """Runs scripted services one after the other, as reloads make them."""

    def start(*services):
        waiting = iter(services)
        settings = services[0].settings
        plan = SimpleNamespace(settings=settings, model=None, cameras=[])
        monkeypatch.setattr(module, "prepare", lambda *_: plan)
        monkeypatch.setattr(module, "Service", lambda *_, **__: next(waiting))
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
