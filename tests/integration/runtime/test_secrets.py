"""Passwords in the configuration, in URLs and in the environment show up nowhere."""

from pathlib import Path

import pytest
from support.service import configuration

pytestmark = pytest.mark.integration
URL, FROM_ENVIRONMENT, BROKER = "in-the-url-1", "from-variable-2", "spelled-out-3"
PAGES = ("/", "/metrics", "/healthz", "/readyz", "/api/state", f"/{URL}?password={BROKER}")


@pytest.fixture
def service(launch, clip, onnx):
    """Two cameras and a broker that cannot be reached, so that errors tell their addresses."""
    settings = configuration(str(clip), onnx)
    line = settings["cameras"][0]["lines"]
    settings["cameras"] = [
        {"name": "door", "source": f"rtsp://viewer:{URL}@127.0.0.1:9/1", "lines": line},
        {"name": "yard", "source": "rtsp://viewer:${YARD}@127.0.0.1:9/1", "lines": line},
    ]
    settings["mqtt"] = {
        "host": "127.0.0.1",
        "port": 9,
        "username": "edge",
        "password": BROKER,
    }
    settings["log"] = {"level": "debug"}
    return launch(settings, environ={"YARD": FROM_ENVIRONMENT})


def test_no_secret_is_told(service):
    service.wait_for(lambda: len(service.logged("camera_away")) >= 2)
    service.wait_for(lambda: service.logged("mqtt_disconnected"))
    told = {page: service.get(page)[1] for page in PAGES}
    told["command line"] = Path(f"/proc/{service.process.pid}/cmdline").read_text()
    told["command line"] = told["command line"].replace(str(service.config), "")
    assert service.terminate() == 0
    told["log"] = service.log.read_text()
    assert "127.0.0.1:9" in told["log"]
    assert "camera door" in told["/readyz"]
    for where, text in told.items():
        for secret in (URL, FROM_ENVIRONMENT, BROKER):
            assert secret not in text, f"{secret} in {where}"


def test_a_wrong_configuration_does_not_quote_it(launch, clip, onnx):
    settings = configuration(f"rtsp://viewer:{URL}@127.0.0.1:9/1", onnx)
    settings["mqtt"] = {"host": "127.0.0.1", "port": "x", "password": BROKER, "pasword": BROKER}
    service = launch(settings)
    assert service.process.wait(20) == 2
    said = service.log.read_text()
    assert "mqtt" in said
    assert BROKER not in said
    assert URL not in said
