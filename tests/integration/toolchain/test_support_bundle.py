"""Secrets planted everywhere must not appear anywhere in the bundle."""

import json
import stat
import tarfile

import pytest
from click.testing import CliRunner

from edgecount.cli.support_bundle import command
from edgecount.observe.health import Health
from edgecount.observe.http import HttpServer, routes
from edgecount.observe.metrics import Metrics
from edgecount.toolchain import support
from edgecount.toolchain.support import secrets_of, write_bundle

pytestmark = pytest.mark.integration

PLANTED = (
    "in-the-url-1",
    "spelled-out-2",
    "from-variable-3",
    "from-file-4",
    "in-password-file-5",
    "in-the-environment-6",
    "default-value-7",
)
CONFIG = """
device: lobby
cameras:
  - {{name: door, source: "rtsp://viewer:in-the-url-1@127.0.0.1:9/1"}}
  - {{name: yard, source: "rtsp://viewer:${{YARD_PASSWORD}}@127.0.0.1:9/1"}}
  - {{name: gate, source: "rtsp://viewer:${{file:{folder}/gate}}@127.0.0.1:9/1"}}
  - {{name: hall, source: "rtsp://viewer:${{UNSET:-default-value-7}}@127.0.0.1:9/1"}}
mqtt: {{host: 127.0.0.1, port: 9, username: edge, password: spelled-out-2}}
model: {{path: /nowhere.onnx}}
ledger: {{path: {folder}/ledger.db}}
http: {{port: {port}}}
"""


@pytest.fixture
def service():
    """A service that (wrongly) tells every secret it knows."""
    server = HttpServer(
        "127.0.0.1", 0, routes(Metrics().registry, Health(), lambda: {"said": PLANTED}, str)
    )
    yield server.port
    server.close()


@pytest.fixture
def config(tmp_path, monkeypatch, service):
    (tmp_path / "gate").write_text("from-file-4\n")
    (tmp_path / "broker").write_text("in-password-file-5\n")
    monkeypatch.setenv("YARD_PASSWORD", "from-variable-3")
    monkeypatch.setenv("SOME_API_TOKEN", "in-the-environment-6")
    monkeypatch.setattr(support, "_journal", lambda: f"a log that tells: {' '.join(PLANTED)}\n")
    path = tmp_path / "edgecount.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, port=service))
    return path


def contents(bundle):
    with tarfile.open(bundle) as archive:
        return {
            m.name[len("edgecount-support/") :]: archive.extractfile(m).read().decode()
            for m in archive.getmembers()
        }


def test_no_planted_secret_is_in_it(config, tmp_path):
    text = config.read_text()
    with_file = text.replace(
        "password: spelled-out-2",
        f"password: spelled-out-2, password_file: {tmp_path / 'broker'}",
    )
    config.write_text(with_file)
    bundle = tmp_path / "bundle.tar.gz"
    write_bundle(config, bundle)
    parts = contents(bundle)
    for secret in PLANTED:
        for name, content in parts.items():
            assert secret not in content, (secret, name)


def test_what_helps_is_in_it(config, tmp_path):
    bundle = tmp_path / "bundle.tar.gz"
    names = write_bundle(config, bundle)
    parts = contents(bundle)
    assert set(names) == set(parts)
    assert json.loads(parts["versions.json"])["edgecount"]
    checks = {f["check"] for f in json.loads(parts["doctor.json"])}
    assert {"board", "clock", "broker", "camera door"} <= checks
    assert "edgecount_frames_total" in parts["service_metrics"]
    assert '"alive"' in parts["service_healthz"]
    assert "name: door" in parts["config.yaml"]
    assert "rtsp://viewer:***@" in parts["config.yaml"]
    assert "a log that tells" in parts["journal.log"]
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600


def test_a_configuration_that_is_no_yaml_keeps_its_secrets_too(tmp_path):
    path = tmp_path / "edgecount.yaml"
    path.write_text("mqtt: {host: x\n  password: spelled-out-2\nurl: rtsp://a:in-the-url-1@h/1\n")
    bundle = tmp_path / "bundle.tar.gz"
    write_bundle(path, bundle, environ={})
    text = "".join(contents(bundle).values())
    assert "spelled-out-2" not in text
    assert "in-the-url-1" not in text
    assert "not valid YAML" in text


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0
    assert "doctor.json" in done.output
    (bundle,) = tmp_path.glob("edgecount-support-*.tar.gz")
    assert "versions.json" in contents(bundle)


def test_references_are_no_secrets():
    assert secrets_of("mqtt: {password: '${MQTT_PASSWORD}'}", {}) == []
