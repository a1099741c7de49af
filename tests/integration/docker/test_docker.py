"""What can be said of docker/ without a docker daemon."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgecount.config import parse
from edgecount.observe.health import Health
from edgecount.observe.http import HttpServer, routes
from edgecount.observe.metrics import Metrics

pytestmark = pytest.mark.integration
DOCKER = Path(__file__).resolve().parents[3] / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(params=DOCKERFILES, ids=lambda p: p.stem)
def dockerfile(request):
    return request.param


def test_there_is_one_per_platform():
    names = {p.stem for p in DOCKERFILES}
    assert names == {"cpu", "cuda", "jetpack4", "jetpack5", "jetpack6", "jetpack7"}


def test_hadolint_finds_nothing(dockerfile):
    beside_python = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=beside_python)
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_stages_are_two_and_the_user_is_not_root(dockerfile):
    text = dockerfile.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.search(r":[\w.-]*\d[\w.-]*$", base) for base in bases)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["990:990"]
    assert "HEALTHCHECK" in text


def test_everything_that_is_copied_exists_and_passes_the_ignore_file(dockerfile):
    rules = (DOCKER.parent / ".dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE):
        for source in sources.split():
            assert (DOCKER.parent / source).exists(), source
            assert any(source == k or source.startswith(f"{k}/") for k in kept), source


def test_compose_mounts_and_builds_what_exists():
    for service in COMPOSE["services"].values():
        assert "image" in service
        assert ":latest" not in service["image"]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "nothing is published to the network"


def test_the_stack_is_complete_and_the_jetson_file_changes_one_service():
    assert set(COMPOSE["services"]) == {
        "secrets",
        "mosquitto",
        "edgecount",
        "prometheus",
        "alertmanager",
        "grafana",
    }
    jetson = yaml.safe_load((DOCKER / "compose.jetson.yaml").read_text())["services"]
    assert set(jetson) == {"edgecount"}
    assert jetson["edgecount"]["runtime"] == "nvidia"


def test_the_configuration_of_the_stack_is_good(tmp_path):
    (tmp_path / "mqtt-password").write_text("secret\n")
    text = (DOCKER / "edgecount.yaml").read_text().replace("/secrets", str(tmp_path))
    settings = parse(text, "edgecount.yaml", {"CAMERA": "rtsp://a:b@10.0.0.5/1"})
    assert settings.mqtt.password.get_secret_value() == "secret"
    assert settings.http.port == 8080


def test_the_secrets_are_drawn_once_and_open_the_broker(tmp_path):
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed")
    script = (DOCKER / "make-secrets.sh").read_text().replace("/secrets", str(tmp_path))
    script = re.sub(r"chown [^\n]*", ":", script)
    subprocess.run(["sh", "-c", script], check=True)
    first = (tmp_path / "mqtt-password").read_text()
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "mqtt-password").read_text() == first
    assert len(first.strip()) == 24
    assert (tmp_path / "grafana-password").read_text() != first
    assert (tmp_path / "mosquitto-passwords").read_text().startswith("edgecount:$")


def test_the_health_check_follows_the_service():
    now = [0.0]
    health = Health(lambda: now[0])
    health.stage("infer", 5.0)
    server = HttpServer("127.0.0.1", 0, routes(Metrics().registry, health, dict, str))
    environ = {"EDGECOUNT_PORT": str(server.port)}
    command = [sys.executable, DOCKER / "healthcheck.py"]
    assert subprocess.run(command, env=environ, check=False).returncode == 0
    now[0] = 6.0
    assert subprocess.run(command, env=environ, check=False).returncode == 1
    server.close()
    assert subprocess.run(command, env=environ, check=False).returncode == 1
