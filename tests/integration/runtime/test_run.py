"""``edgecount run`` on a clip: counts, pages, signals, reloads and exit codes."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import cv2
import pytest
from support.service import configuration

pytestmark = pytest.mark.integration


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edgecount", *arguments], capture_output=True, text=True, timeout=60
    )


def looped(clip: Path, onnx: Path, **changes: Any) -> Dict[str, Any]:
    settings = configuration(str(clip), onnx, **changes)
    settings["cameras"][0]["capture"] = {"loop": True, "realtime": True, "fps": 50}
    return settings


def test_a_clip_is_counted_and_the_service_ends_by_itself(launch, clip, onnx):
    service = launch(configuration(str(clip), onnx))
    assert service.ended(60) == 0
    (stopped,) = service.logged("stopped")
    assert stopped["totals"] == {"door": {"middle": [4, 0]}}


def test_counts_are_the_same_from_run_to_run(launch, clip, onnx):
    totals = []
    for _ in range(3):
        service = launch(configuration(str(clip), onnx))
        assert service.ended(60) == 0
        totals.append(service.logged("stopped")[0]["totals"])
    assert totals[0] == totals[1] == totals[2]


def test_without_a_configuration_there_is_a_line_across_the_middle(clip, onnx):
    done = run("run", "--source", str(clip), "--model", str(onnx))
    assert done.returncode == 0, done.stderr
    stopped = [json.loads(line) for line in done.stderr.splitlines()][-1]
    assert stopped["totals"] == {"camera": {"middle": [4, 0]}}
    assert "no_broker" in done.stderr


def test_pages_tell_metrics_health_and_state(launch, clip, onnx):
    service = launch(looped(clip, onnx))
    service.wait_for(lambda: service.camera()["lines"]["middle"]["in"] >= 1)
    status, metrics = service.get("/metrics")
    assert status == 200
    assert 'edgecount_frames_total{camera="door",outcome="processed"}' in metrics
    assert 'edgecount_camera_up{camera="door"} 1.0' in metrics
    for stage in ("preprocess", "infer", "post", "track", "count", "end_to_end"):
        assert f'edgecount_stage_seconds_count{{stage="{stage}"}}' in metrics
    assert service.get("/healthz")[0] == 200
    assert service.get("/readyz")[0] == 200
    assert service.state()["places"]["hall"] >= 1


def test_sigterm_ends_it_within_two_seconds_with_exit_code_0(launch, clip, onnx):
    service = launch(looped(clip, onnx))
    service.wait_for(lambda: service.camera()["visible"])
    began = time.monotonic()
    assert service.terminate() == 0
    assert time.monotonic() - began < 2.0
    assert service.logged("stopped")


def test_sigint_ends_it_too(launch, clip, onnx):
    service = launch(looped(clip, onnx))
    service.port()
    service.process.send_signal(signal.SIGINT)
    assert service.ended(5) == 0


def test_a_duration_ends_it(launch, clip, onnx):
    service = launch(looped(clip, onnx), "--duration", "1")  # the clip itself never ends
    assert service.ended(30) == 0
    assert service.logged("stopped")


def test_sighup_takes_a_good_configuration_and_keeps_the_counts(launch, clip, onnx):
    settings = looped(clip, onnx)
    service = launch(settings)
    before = service.wait_for(lambda: service.camera()["lines"]["middle"]["in"])
    settings["cameras"][0]["lines"].append({"name": "late", "from": [0, 0.6], "to": [1, 0.6]})
    service.write(settings)
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: service.logged("reloaded"))
    service.wait_for(lambda: "late" in service.camera()["lines"])
    assert service.camera()["lines"]["middle"]["in"] >= before
    service.wait_for(lambda: service.camera()["lines"]["late"]["in"] > 0)


def test_sighup_refuses_a_bad_configuration_and_the_old_one_goes_on(launch, clip, onnx):
    settings = looped(clip, onnx)
    service = launch(settings)
    service.wait_for(lambda: service.camera()["visible"])
    service.write({**settings, "camras": []})
    service.process.send_signal(signal.SIGHUP)
    (refused,) = service.wait_for(lambda: service.logged("reload_refused"))
    assert "camras" in refused["reason"]
    assert "cameras" in refused["reason"]
    counted = service.camera()["lines"]["middle"]["in"]
    service.wait_for(lambda: service.camera()["lines"]["middle"]["in"] > counted)


def test_a_reload_that_cannot_start_falls_back_to_the_old_configuration(launch, clip, onnx):
    settings = looped(clip, onnx)
    service = launch(settings)
    service.wait_for(lambda: service.camera()["visible"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service.write({**settings, "http": {"port": taken.getsockname()[1]}})
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: service.logged("reload_refused"))
    service.wait_for(lambda: service.camera()["visible"])


def test_totals_survive_a_restart_and_a_kill(launch, clip, onnx, tmp_path):
    settings = looped(clip, onnx, ledger={"path": str(tmp_path / "ledger.db"), "commit_ms": 20})
    first = launch(settings)
    counted = first.wait_for(lambda: first.camera()["lines"]["middle"]["in"])
    time.sleep(0.5)
    first.process.kill()
    first.process.wait()
    second = launch(settings)
    assert second.camera()["lines"]["middle"]["in"] >= counted
    assert second.state()["places"]["hall"] >= counted


def test_a_taken_port_is_a_sentence_and_exit_code_1(clip, onnx, launch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = launch(configuration(str(clip), onnx, http={"port": port}))
        assert service.ended(20) == 1
    said = service.log.read_text()
    assert f"127.0.0.1:{port}" in said
    assert "http.port" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["clip.avi", "check the path"]),
        (b"", ["clip.avi"]),
        (b"RIFF not a video at all" * 100, ["clip.avi"]),
    ],
)
def test_a_missing_or_broken_clip_is_a_sentence_and_exit_code_1(tmp_path, onnx, content, words):
    clip = tmp_path / "clip.avi"
    if content is not None:
        clip.write_bytes(content)
    done = run("run", "--source", str(clip), "--model", str(onnx))
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_clip_counts_what_is_there(launch, clip, onnx, tmp_path):
    broken = tmp_path / "broken.avi"
    data = clip.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    service = launch(configuration(str(broken), onnx))
    assert service.ended(60) in (0, 1)
    (stopped,) = service.logged("stopped")
    assert 1 <= stopped["totals"]["door"]["middle"][0] <= 3
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["-c FILE", "--source"]),
        (["run", "--source", "clip.avi", "--model", "no-such.onnx"], ["no-such.onnx"]),
        (["run", "-c", "no-such.yaml"], ["no-such.yaml"]),
        (["run", "--source", "ftp://host/x"], ["rtsp://"]),
        (["run", "--nonsense"], ["--nonsense"]),
        (["check", "-c", "no-such.yaml"], ["no-such.yaml"]),
    ],
)
def test_bad_usage_is_a_sentence_and_exit_code_2(arguments: List[str], words: List[str], onnx):
    if "ftp://host/x" in arguments:
        arguments = [*arguments, "--model", str(onnx)]
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_good_or_what_is_wrong(tmp_path, clip, onnx):
    good = tmp_path / "good.yaml"
    good.write_text(json.dumps(configuration(str(clip), onnx)))
    done = run("check", "-c", str(good))
    assert done.returncode == 0, done.stderr
    assert "is good" in done.stdout
    bad = configuration(str(clip), onnx)
    bad["cameras"][0]["tracker"] = {"kind": "two_stage", "hihg": 0.5}
    good.write_text(json.dumps(bad))
    done = run("check", "-c", str(good))
    assert done.returncode == 2
    assert "hihg" in done.stderr


def test_the_version_is_told():
    done = run("--version")
    assert done.returncode == 0
    assert "edgecount" in done.stdout


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.png"])
def test_what_is_counted_is_drawn(tmp_path, clip, onnx, name):
    out = tmp_path / name
    done = run("run", "--source", str(clip), "--model", str(onnx), "--annotate", str(out))
    assert done.returncode == 0, done.stderr
    capture = cv2.VideoCapture(str(out))
    ok, picture = capture.read()
    assert ok
    # The line's colour runs across the middle, where the clip itself is dark grey.
    middle = picture[picture.shape[0] // 2, 10:100].astype(int)
    assert (middle[:, 2] - middle[:, 0] > 100).all()


def test_an_impossible_annotation_is_refused_at_once(tmp_path, clip, onnx):
    done = run(
        "run", "--source", str(clip), "--model", str(onnx), "--annotate", str(tmp_path / "x.gif")
    )
    assert done.returncode == 2
    assert ".mp4" in done.stderr


def test_what_a_bench_prints_as_json_is_nothing_but_json(clip, onnx):
    done = run(
        "bench",
        "--source",
        str(clip),
        "--model",
        str(onnx),
        "--seconds",
        "2",
        "--turns",
        "2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    wanted = {
        "fps",
        "fps_cv",
        "p50_ms",
        "p99_ms",
        "infer_only_fps",
        "efficiency",
        "cpu_cores",
        "rss_mb",
    }
    assert wanted <= set(result)
    assert result["fps"] > 0
    assert "inference_failed" not in done.stderr


def test_what_a_reload_removes_leaves_the_metrics(launch, clip, onnx):
    settings = looped(clip, onnx)
    service = launch(settings)
    service.wait_for(lambda: 'edgecount_camera_up{camera="door"} 1.0' in service.get("/metrics")[1])
    settings["cameras"][0]["name"] = "gate"
    settings["places"] = {"yard": {"in": ["gate.middle"]}}
    service.write(settings)
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: 'edgecount_camera_up{camera="gate"} 1.0' in service.get("/metrics")[1])
    metrics = service.get("/metrics")[1]
    assert 'camera="door"' not in metrics
    assert 'place="hall"' not in metrics
    assert 'edgecount_occupancy{place="yard"}' in metrics


def test_a_closed_terminal_ends_a_run_without_a_configuration(clip, onnx, tmp_path):
    command = ["run", "--source", str(clip), "--model", str(onnx), "--realtime"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "edgecount", *command], stderr=out)
    deadline = time.monotonic() + 20
    while "camera_online" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(5) == 0
