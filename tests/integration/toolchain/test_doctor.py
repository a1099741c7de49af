"""edgecount doctor against a real broker, a real clip and a real port."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgecount.cli.doctor import command

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path):
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    passwords = shutil.which("mosquitto_passwd")
    if program is None or passwords is None:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    file = tmp_path / "passwords"
    file.touch()
    subprocess.run([passwords, "-b", str(file), "edge", "hunter2"], check=True)
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\npassword_file {file}\nuser root\n")
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    wait_for(port)
    yield port
    process.terminate()
    process.wait(5)


def wait_for(port):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the broker did not start")


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(20):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    return path


def configuration(folder: Path, source, port, password, extra=""):
    path = folder / "edgecount.yaml"
    path.write_text(
        f"cameras: [{{name: door, source: '{source}'}}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {port}, username: edge, password: {password}}}\n"
        f"ledger: {{path: {folder}/ledger.db}}\n"
        f"model: {{path: /nowhere/model.onnx}}\n{extra}"
    )
    return path


def examined(path):
    done = CliRunner().invoke(command, ["-c", str(path), "--json"])
    assert "hunter" not in done.output
    return {f["check"]: f for f in json.loads(done.output)["findings"]}, done


def test_a_good_broker_and_clip(tmp_path, broker, clip):
    found, done = examined(configuration(tmp_path, clip, broker, "hunter2"))
    assert found["configuration"]["state"] == "ok"
    assert found["broker"]["state"] == "ok"
    assert "as 'edge'" in found["broker"]["detail"]
    assert found["camera door"]["state"] == "ok"
    assert "320×240 MJPG" in found["camera door"]["detail"]
    assert found["disk"]["state"] in ("ok", "warn")
    assert found["model"]["state"] == "fail"  # there is none at that path
    assert done.exit_code == 1


def test_a_wrong_password_a_missing_file_and_a_taken_port(tmp_path, broker):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        http = f"http: {{port: {taken.getsockname()[1]}}}\n"
        path = configuration(tmp_path, "/nowhere/clip.avi", broker, "hunter3", http)
        found, _ = examined(path)
    assert found["broker"]["state"] == "fail"
    assert found["camera door"]["state"] == "fail"
    assert "/nowhere/clip.avi" in found["camera door"]["detail"]
    assert found["http"]["state"] == "warn"


def test_a_wrong_configuration_is_a_finding_and_the_device_is_still_looked_at(tmp_path):
    path = tmp_path / "edgecount.yaml"
    path.write_text("camera: []\n")
    found, done = examined(path)
    assert found["configuration"]["state"] == "fail"
    assert "cameras" in found["configuration"]["detail"]
    assert "board" in found
    assert done.exit_code == 1


def test_without_a_configuration_it_is_one_page_of_text():
    done = CliRunner().invoke(command, [])
    assert "board" in done.output
    assert "clock" in done.output
    assert len(done.output.splitlines()) < 40
