import pytest

from edgecount.observe.health import Health


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock)


def test_alive_while_every_stage_turns(health, clock):
    beat = health.stage("infer", 5.0)
    health.stage("count", 60.0)
    clock.now += 4.0
    beat()
    clock.now += 4.0
    report = health.alive()
    assert report.ok
    assert report.reasons == ()
    assert report.details["stages"]["infer"] == {"age_s": 4.0, "limit_s": 5.0}


def test_a_hung_stage_is_named(health, clock):
    health.stage("infer", 5.0)
    other = health.stage("count", 5.0)
    clock.now += 6.0
    other()
    report = health.alive()
    assert not report.ok
    assert report.reasons == ("stage infer has not turned for 6.0 s (limit 5 s)",)


def test_an_announced_step_may_last(health, clock):
    beat = health.stage("infer", 5.0)
    beat.allow(600.0)
    clock.now += 604.0
    assert health.alive().ok
    clock.now += 2.0
    assert not health.alive().ok


def test_a_retired_stage_is_not_missed(health, clock):
    health.stage("capture:door", 5.0)
    health.retire("capture:door")
    clock.now += 100.0
    assert health.alive().ok


def test_a_camera_that_is_away_is_not_ready_but_alive(health):
    health.engine(True, "onnxruntime-cpu")
    health.camera("door", "degraded", "no frame for 4.0 s")
    health.camera("yard", "online")
    assert health.alive().ok
    report = health.ready()
    assert not report.ok
    assert report.reasons == ("camera door is degraded: no frame for 4.0 s",)
    health.camera("door", "online")
    assert health.ready().ok


def test_not_ready_before_anything_was_said(health):
    report = health.ready()
    assert report.reasons == (
        "the engine is not loaded: the engine is being loaded",
        "no camera has reported yet",
    )


def test_a_broker_error_is_told_and_does_not_make_unready(health):
    health.engine(True)
    health.camera("door", "online")
    assert "broker" not in health.ready().details
    health.broker(False, "login refused: check mqtt.username")
    report = health.ready()
    assert report.ok
    assert report.details["broker"]["error"] == "login refused: check mqtt.username"


def test_a_removed_camera_is_not_missed(health):
    health.engine(True)
    health.camera("door", "online")
    health.camera("yard", "offline")
    health.forget_camera("yard")
    assert health.ready().ok
