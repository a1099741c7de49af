"""Rules, dashboards and alerts of docker/observability against real tools and a real Prometheus."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from edgecount.observe.health import Health
from edgecount.observe.http import HttpServer, routes
from edgecount.observe.metrics import STAGES, Metrics
from edgecount.observe.telemetry.base import Reading

pytestmark = pytest.mark.integration
STACK = Path(__file__).resolve().parents[3] / "docker" / "observability"
DASHBOARDS = sorted((STACK / "grafana" / "dashboards").glob("*.json"))
RULES = yaml.safe_load((STACK / "prometheus" / "rules.yml").read_text())
ALERTS = [r for g in RULES["groups"] for r in g["rules"] if "alert" in r]


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def run(*command):
    done = subprocess.run(
        command, cwd=STACK / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "config", "prometheus.yml"),
        ("promtool", "check", "rules", "rules.yml"),
        ("promtool", "test", "rules", "rules_test.yml"),
        ("amtool", "check-config", "../alertmanager/alertmanager.yml"),
    ],
    ids=lambda c: " ".join(c[:3]),
)
def test_the_tools_find_nothing_wrong(command):
    need(command[0])
    run(*command)


@pytest.mark.parametrize("alert", [a["alert"] for a in ALERTS])
def test_every_alert_is_tested_for_firing_and_for_silence(alert):
    tests = yaml.safe_load((STACK / "prometheus" / "rules_test.yml").read_text())["tests"]
    expected = [
        bool(case["exp_alerts"])
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == alert
    ]
    assert set(expected) == {True, False}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda a: a["alert"])
def test_every_alert_has_a_page_in_the_docs(alert):
    document, anchor = alert["annotations"]["runbook"].split("#")
    headings = [
        line.lstrip("# ").strip().lower()
        for line in (STACK.parents[1] / document).read_text().splitlines()
        if line.startswith("#")
    ]
    assert anchor in headings


def test_what_is_generated_is_current(tmp_path):
    for folder in ("dashboards", "provisioning/alerting"):
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run([sys.executable, STACK / "generate.py", tmp_path], check=True)
    made = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) == 4
    for path in made:
        assert path.read_text() == (STACK / "grafana" / path.relative_to(tmp_path)).read_text()


def test_grafana_has_the_same_alerts():
    provisioned = yaml.safe_load(
        (STACK / "grafana" / "provisioning" / "alerting" / "edgecount.yml").read_text()
    )
    rules = {r["title"]: r for g in provisioned["groups"] for r in g["rules"]}
    assert set(rules) == {a["alert"] for a in ALERTS}
    for alert in ALERTS:
        rule = rules[alert["alert"]]
        assert rule["data"][0]["model"]["expr"] == alert["expr"].strip()
        assert rule["for"] == alert.get("for", "0s")
        assert len(rule["uid"]) <= 40


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A real Prometheus that scrapes a service's real exposition and evaluates our rules."""
    need("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    metrics = Metrics(device=lambda: READING)
    server = HttpServer("127.0.0.1", 0, routes(metrics.registry, Health(), dict, str))
    config = yaml.safe_load((STACK / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(STACK / "prometheus" / "rules.yml")]
    del config["alerting"]
    job = config["scrape_configs"][0]
    job["scrape_timeout"] = "1s"
    del job["file_sd_configs"]
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{server.port}"], "labels": {"instance": "lobby"}}
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        live(metrics, port)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        server.close()


READING = Reading(
    gpu_memory_bytes={"used": 6e9, "total": 8e9, "process": 1e9},
    gpu_utilization_ratio=0.5,
    throttled=False,
    power_watts={"VDD_IN": 7.5},
    temperature_celsius={"gpu-thermal": 51.0},
    power_mode="MAXN",
    host_memory_bytes={"total": 8e9, "available": 2e9},
    host_cpu_ratio=0.25,
)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def live(metrics, port):
    """Count for some seconds, until Prometheus has seen counters rise."""
    door = metrics.camera("door", 25.0, ["entrance"], ["hall"])
    metrics.occupancy("building", 4)
    metrics.broker(True)
    metrics.outbox(0)
    metrics.build("0.1.0", "onnxruntime-cpu", "fp32", "head-n")
    door.rate(25.0, 0.01)
    door.delivers(True)
    end = time.monotonic() + 40
    while time.monotonic() < end:
        for stage in STAGES:
            metrics.stage(stage, 0.01)
        door.frame("processed")
        door.frame("dropped")
        door.sees(3)
        door.crossed("entrance", "in")
        door.zone("hall", 2)
        time.sleep(0.1)
        if query(port, "rate(edgecount_frames_total[5s]) > 0") and query(
            port, "line:edgecount_crossings:increase1h"
        ):
            return
    pytest.fail("Prometheus saw nothing within 40 s")


def query(port, expression):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return []


def panels():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']}")


@pytest.mark.parametrize("expression", list(panels()))
def test_every_expression_of_a_dashboard_has_data(prometheus, expression):
    filled = expression.replace("$instance", "lobby").replace("$camera", "door")
    filled = filled.replace("$__rate_interval", "5s")
    assert "$" not in filled
    assert query(prometheus, filled)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda a: a["alert"])
def test_every_alert_looks_at_series_that_exist(prometheus, alert):
    import re

    names = set(re.findall(r"\b(?:edgecount_\w+|up|process_start_time_seconds)\b", alert["expr"]))
    assert names
    for name in names:
        assert query(prometheus, name), name


def test_recording_rules_have_data(prometheus):
    for rule in (r for g in RULES["groups"] for r in g["rules"] if "record" in r):
        assert query(prometheus, rule["record"]), rule["record"]


def test_dashboards_lead_into_each_other():
    boards = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}
    assert {b["uid"] for b in boards.values()} == set(boards)
    for board in boards.values():
        text = json.dumps(board)
        assert "/d/edgecount-" in text or board["uid"] == "edgecount-camera"
        ids = [p["id"] for p in board["panels"]]
        assert len(ids) == len(set(ids))
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
