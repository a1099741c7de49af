import shutil
import subprocess
import threading

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgecount.observe.metrics import STAGES, Metrics
from edgecount.observe.telemetry.base import Reading

# Names and labels on the wire: dashboards and alert rules of users depend on them.
WIRE = {
    "frames_total": {"camera", "outcome"},
    "fps": {"camera"},
    "fps_fluctuation_ratio": {"camera"},
    "fps_target": {"camera"},
    "stage_seconds": {"stage"},
    "camera_up": {"camera"},
    "reconnects_total": {"camera"},
    "crossings_total": {"camera", "line", "direction"},
    "occupancy": {"place"},
    "zone_now": {"camera", "zone"},
    "visible": {"camera"},
    "gpu_memory_bytes": {"kind"},
    "gpu_memory_ratio": set(),
    "gpu_utilization_ratio": set(),
    "throttled": set(),
    "ledger_degraded": set(),
    "engine_fallback": set(),
    "power_watts": {"rail"},
    "power_mode_info": {"mode"},
    "temperature_celsius": {"zone"},
    "host_memory_bytes": {"kind"},
    "host_cpu_utilization_ratio": set(),
    "mqtt_connected": set(),
    "outbox_messages": set(),
    "outbox_given_up_total": set(),
    "ledger_written_bytes": set(),
    "build_info": {"version", "backend", "precision", "engine"},
}

READING = Reading(
    gpu_memory_bytes={"used": 2e9, "total": 8e9},
    gpu_utilization_ratio=0.5,
    throttled=False,
    power_watts={"VDD_IN": 7.5},
    temperature_celsius={"gpu-thermal": 51.0},
    power_mode="MAXN",
    host_memory_bytes={"total": 8e9, "available": 6e9},
    host_cpu_ratio=0.25,
)


def populated(reading=READING):
    metrics = Metrics(device=lambda: reading)
    door = metrics.camera("door", 25.0, ["entrance"], ["hall"])
    door.frame("processed")
    door.rate(24.9, 0.01)
    door.delivers(True)
    door.reconnected()
    door.sees(3)
    door.crossed("entrance", "in")
    door.zone("hall", 2)
    metrics.stage("infer", 0.012)
    metrics.occupancy("lobby", 7)
    metrics.broker(True)
    metrics.outbox(0)
    metrics.ledger_degraded(False)
    metrics.engine_fallback(True)
    metrics.build("0.1.0", "onnxruntime-cpu", "fp32", "head-n")
    return metrics


def exposed(metrics):
    text = generate_latest(metrics.registry).decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_every_name_and_label_on_the_wire():
    found = {}
    for name, labels in exposed(populated()):
        if not name.startswith("edgecount_"):
            continue
        base = name[len("edgecount_") :]
        for suffix in ("_bucket", "_sum", "_count"):
            base = base[: -len(suffix)] if base.endswith(suffix) else base
        found.setdefault(base, set()).update({k for k, _ in labels} - {"le"})
    assert found == WIRE


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("frames_total", {"camera": "door", "outcome": "processed"}, 1.0),
        ("frames_total", {"camera": "door", "outcome": "dropped"}, 0.0),
        ("fps", {"camera": "door"}, 24.9),
        ("fps_target", {"camera": "door"}, 25.0),
        ("camera_up", {"camera": "door"}, 1.0),
        ("reconnects_total", {"camera": "door"}, 1.0),
        ("visible", {"camera": "door"}, 3.0),
        ("crossings_total", {"camera": "door", "line": "entrance", "direction": "in"}, 1.0),
        ("crossings_total", {"camera": "door", "line": "entrance", "direction": "out"}, 0.0),
        ("zone_now", {"camera": "door", "zone": "hall"}, 2.0),
        ("occupancy", {"place": "lobby"}, 7.0),
        ("engine_fallback", {}, 1.0),
        ("gpu_memory_ratio", {}, 0.25),
        ("throttled", {}, 0.0),
        ("stage_seconds_count", {"stage": "infer"}, 1.0),
        ("stage_seconds_count", {"stage": "track"}, 0.0),
    ],
)
def test_values(name, labels, value):
    assert exposed(populated())[f"edgecount_{name}", tuple(sorted(labels.items()))] == value


def test_what_is_not_there_has_no_series():
    names = {name for name, _ in exposed(Metrics(device=lambda: None))}
    assert "edgecount_mqtt_connected" not in names
    assert "edgecount_outbox_messages" not in names
    assert not any(n.startswith(("edgecount_gpu", "edgecount_power")) for n in names)
    assert "edgecount_ledger_degraded" in names
    assert "process_resident_memory_bytes" in names


def test_a_forgotten_camera_ends_and_its_last_calls_do_no_harm():
    metrics = Metrics()
    door = metrics.camera("door", 25.0, ["entrance"], ["hall"])
    metrics.camera("yard", 10.0)
    metrics.forget_camera("door")
    door.frame("dropped")
    door.crossed("entrance", "in")
    door.zone("hall", 1)
    cameras = {dict(labels).get("camera") for _, labels in exposed(metrics)}
    assert cameras == {None, "yard"}


def test_a_camera_may_come_back_with_other_lines():
    metrics = Metrics()
    metrics.camera("door", 25.0, ["old"])
    metrics.camera("door", 25.0, ["new"]).crossed("new", "out")
    lines = {dict(labels).get("line") for _, labels in exposed(metrics)}
    assert lines == {None, "new"}


def test_names_outside_the_configuration_make_no_series():
    door = Metrics().camera("door", 25.0, ["entrance"])
    with pytest.raises(KeyError):
        door.crossed("track-17", "in")
    with pytest.raises(KeyError):
        door.frame("odd")


def test_the_number_of_series_of_a_camera_is_fixed():
    metrics = Metrics()
    before = len(exposed(metrics))
    door = metrics.camera("door", 25.0, ["a", "b"], ["z"])
    after = len(exposed(metrics))
    assert after - before == 4 + 6 + 4 + 1
    for _ in range(100):
        door.frame("processed")
        door.crossed("a", "in")
    assert len(exposed(metrics)) == after


def test_build_info_has_one_series():
    metrics = Metrics()
    metrics.build("0.1.0", "tensorrt", "int8", "head-n")
    metrics.build("0.1.0", "onnxruntime-cpu", "fp32", "head-n")
    series = [labels for name, labels in exposed(metrics) if name == "edgecount_build_info"]
    assert [dict(labels)["backend"] for labels in series] == ["onnxruntime-cpu"]


def test_buckets_tell_one_from_two_hundred_milliseconds_apart():
    metrics = Metrics()
    for ms in (0.9, 9, 39, 41, 190):
        metrics.stage("infer", ms / 1000)
    values = exposed(metrics)

    def up_to(le):
        return values["edgecount_stage_seconds_bucket", (("le", le), ("stage", "infer"))]

    assert [up_to(x) for x in ("0.001", "0.01", "0.04", "0.06", "0.2", "+Inf")] == [
        1,
        2,
        3,
        4,
        5,
        5,
    ]


def test_calls_from_threads_add_up():
    metrics = Metrics()
    door = metrics.camera("door", 25.0)

    def work():
        for _ in range(2000):
            door.frame("processed")
            metrics.stage("track", 0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    values = exposed(metrics)
    key = ("edgecount_frames_total", (("camera", "door"), ("outcome", "processed")))
    assert values[key] == 8000
    assert values["edgecount_stage_seconds_count", (("stage", "track"),)] == 8000


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_complain_of():
    text = generate_latest(populated().registry)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_every_stage_of_a_frame_has_a_series():
    values = exposed(Metrics())
    for stage in STAGES:
        assert ("edgecount_stage_seconds_count", (("stage", stage),)) in values
