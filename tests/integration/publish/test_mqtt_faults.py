"""Everything that a broker refuses is named: in the state, the sentence, and once in the log."""

import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
import structlog
from support.mosquitto import Broker, Certificates, Proxy, Subscriber, free_port, wait_until

from edgecount.count.ledger import Ledger
from edgecount.errors import ConfigError
from edgecount.publish.mqtt import MqttSink
from edgecount.records import CountEvent

pytestmark = pytest.mark.integration

MakeSink = Callable[..., MqttSink]
SECRET = "hunter2-planted-secret"


@pytest.fixture
def logs() -> Iterator[List[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker with a user that may do all, and one that may only read."""
    if not shutil.which("mosquitto_passwd"):
        pytest.skip("mosquitto_passwd is not installed")
    users = tmp_path / "users"
    users.touch(mode=0o600)
    for user in ("edge", "reader", "half"):
        subprocess.run(["mosquitto_passwd", "-b", users, user, SECRET], check=True)
    (tmp_path / "acl").write_text(
        "user edge\ntopic readwrite #\n"
        "user reader\ntopic read #\n"
        "user half\ntopic readwrite edgecount/lobby/status\n"
        "topic readwrite edgecount/lobby/door/state\n"
    )
    lines = f"allow_anonymous false\npassword_file {users}\nacl_file {tmp_path / 'acl'}"
    broker = Broker(tmp_path, lines).start()
    yield broker
    broker.kill()


def refused(sink: MqttSink) -> str:
    wait_until(lambda: sink.state == "refused", what=f"a refusal, not {sink.last_error!r}")
    return sink.last_error


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize(
    "login", [{}, {"username": "edge", "password": "wrong-" + SECRET}, {"username": "nobody"}]
)
def test_a_refused_login_is_an_error_state(
    guarded: Broker, make_sink: MakeSink, protocol: str, login: dict, logs: list
) -> None:
    sink = make_sink(guarded.port, protocol=protocol, **login)
    assert "refuses the login" in refused(sink)
    assert "mqtt.password" in sink.last_error
    assert not sink.connected
    time.sleep(2.5)  # more tries, no more lines
    reports = [entry for entry in logs if entry["event"] == "mqtt_disconnected"]
    assert len(reports) == 1
    assert reports[0]["log_level"] == "error"
    assert SECRET not in repr(logs)
    assert SECRET not in sink.last_error


def test_the_login_works_with_a_password_file(
    guarded: Broker, make_sink: MakeSink, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    sink = make_sink(guarded.port, username="edge", password_file=tmp_path / "secret")
    wait_until(lambda: sink.connected)


def test_a_missing_password_file_is_named(
    guarded: Broker, make_sink: MakeSink, tmp_path: Path
) -> None:
    sink = make_sink(guarded.port, username="edge", password_file=tmp_path / "nowhere")
    assert "password_file" in refused(sink)


def test_no_permission_for_the_birth_message_is_named(
    guarded: Broker, make_sink: MakeSink, logs: list
) -> None:
    sink = make_sink(guarded.port, username="reader", password=SECRET)
    assert "publish to edgecount/lobby/status" in refused(sink)
    time.sleep(3.0)
    assert "publish to edgecount/lobby/status" in sink.last_error
    assert not sink.connected
    assert [e["event"] for e in logs if e["event"].startswith("mqtt")] == ["mqtt_disconnected"]


def test_no_permission_for_a_topic_is_named_and_keeps_the_events(
    guarded: Broker, make_sink: MakeSink, ledger: Ledger
) -> None:
    sink = make_sink(guarded.port, username="half", password=SECRET)
    wait_until(lambda: sink.connected)
    ledger.record([CountEvent("line", "door", "entrance", "in", 1, 1, time.time())])
    assert "edgecount/lobby/door/event" in refused(sink)
    assert ledger.backlog == 1


@pytest.mark.parametrize(
    ("certificate", "words"),
    [("expired", "has expired"), ("wronghost", "another host name"), ("unknown", "unknown CA")],
)
def test_each_bad_certificate_is_named(
    tmp_path: Path,
    certificates: Certificates,
    make_sink: MakeSink,
    certificate: str,
    words: str,
    logs: list,
) -> None:
    broker = Broker(tmp_path, certificates.listener(certificate)).start()
    sink = make_sink(broker.port, host="localhost", tls={"ca": certificates.path("ca.pem")})
    assert words in refused(sink)
    assert [e["reason"] for e in logs if e["event"] == "mqtt_disconnected"] == [sink.last_error]
    broker.kill()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_tls_works(
    tmp_path: Path,
    certificates: Certificates,
    make_sink: MakeSink,
    ledger: Ledger,
    protocol: str,
) -> None:
    broker = Broker(tmp_path, certificates.listener("server")).start()
    sink = make_sink(
        broker.port, host="localhost", protocol=protocol,
        tls={"ca": certificates.path("ca.pem"), "alpn": ["mqtt"]},
    )  # fmt: skip
    wait_until(lambda: sink.connected)
    ledger.record(
        [CountEvent("line", "door", "entrance", "in", n, n, time.time()) for n in range(500)]
    )
    wait_until(lambda: ledger.seq == 500 and ledger.backlog == 0, what="500 acknowledgements")
    broker.kill()


def test_a_host_name_that_differs_can_be_allowed(
    tmp_path: Path, certificates: Certificates, make_sink: MakeSink
) -> None:
    broker = Broker(tmp_path, certificates.listener("wronghost")).start()
    tls = {"ca": certificates.path("ca.pem"), "check_hostname": False}
    sink = make_sink(broker.port, host="localhost", tls=tls)
    wait_until(lambda: sink.connected)
    broker.kill()


def test_a_client_certificate_is_presented_or_asked_for(
    tmp_path: Path, certificates: Certificates, make_sink: MakeSink
) -> None:
    broker = Broker(tmp_path, certificates.listener("server", require_client=True)).start()
    tls = {"ca": certificates.path("ca.pem")}
    without = make_sink(broker.port, host="localhost", tls=tls, client_id="without")
    assert "client certificate" in refused(without)
    tls.update(cert=certificates.path("client.pem"), key=certificates.path("client.key"))
    sink = make_sink(broker.port, host="localhost", tls=tls, client_id="with")
    wait_until(lambda: sink.connected)
    broker.kill()


def test_tls_to_a_plain_port_and_plain_to_a_tls_port(
    tmp_path: Path, certificates: Certificates, make_sink: MakeSink
) -> None:
    plain = Broker(tmp_path).start()
    sink = make_sink(plain.port, host="localhost", tls={"ca": certificates.path("ca.pem")})
    assert "speak TLS at this port" in refused(sink)
    plain.kill()
    broker = Broker(tmp_path, certificates.listener("server")).start()
    sink = make_sink(broker.port)
    assert "TLS" in refused(sink)
    broker.kill()


def test_missing_certificate_files_are_configuration_errors(
    make_sink: MakeSink, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.tls\.ca.*nowhere"):
        make_sink(1, tls={"ca": tmp_path / "nowhere.pem"})


def test_no_broker_at_start_is_said_once_and_found_later(
    tmp_path: Path, make_sink: MakeSink, logs: list
) -> None:
    broker = Broker(tmp_path)
    sink = make_sink(broker.port)
    wait_until(lambda: sink.state == "away")
    assert "nothing listens" in sink.last_error
    time.sleep(1.5)
    broker.start()
    wait_until(lambda: sink.connected)
    assert [e["event"] for e in logs] == ["mqtt_disconnected", "mqtt_connected"]
    broker.kill()


def test_an_unknown_host_is_named(make_sink: MakeSink) -> None:
    sink = make_sink(1883, host="no-such-host.invalid")
    wait_until(lambda: "no-such-host.invalid" in sink.last_error)
    assert "DNS" in sink.last_error


def test_a_silent_listener_is_given_up(make_sink: MakeSink) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        sink = make_sink(silent.getsockname()[1])
        wait_until(lambda: sink.last_error != "", 12.0)
        assert "without an answer" in sink.last_error


def test_a_takeover_that_the_broker_names_is_told(make_sink: MakeSink) -> None:
    """mosquitto 2.0.11 closes without the DISCONNECT packet, so the packet is scripted."""
    connack = b"\x20\x03\x00\x00\x00"
    # With a reason string: paho 2.1 reads no reason from a packet without properties.
    taken_over = b"\xe0\x08\x8e\x06\x1f\x00\x03bye"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sink = make_sink(listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(connack)
            peer.recv(1000)
            peer.sendall(b"\x40\x02\x00\x01")  # the birth message is taken
            wait_until(lambda: sink.connected)
            peer.sendall(taken_over)
            assert "took over" in refused(sink)
            assert "'edgecount-lobby'" in sink.last_error


def test_a_rival_with_the_same_client_id_is_named(broker: Broker, make_sink: MakeSink) -> None:
    sink = make_sink(broker.port)
    wait_until(lambda: sink.connected)
    rival = Subscriber(broker.port, "nothing", client_id="edgecount-lobby")
    assert "same client id 'edgecount-lobby'" in refused(sink)
    rival.close()


def test_a_takeover_is_guessed_with_mqtt_3(broker: Broker, make_sink: MakeSink) -> None:
    proxy = Proxy(broker.port)
    sink = make_sink(proxy.port, protocol="3.1.1")
    for _ in range(3):
        wait_until(lambda: sink.connected)
        proxy.cut()
        wait_until(lambda: not sink.connected)
    assert "same client id 'edgecount-lobby'" in refused(sink)
    proxy.close()


def test_waits_grow_while_each_login_is_dropped_at_once(
    broker: Broker, make_sink: MakeSink
) -> None:
    proxy = Proxy(broker.port)
    sink = make_sink(proxy.port)
    deadline = time.monotonic() + 6.0
    while time.monotonic() < deadline:
        if sink.connected:
            proxy.cut()
        time.sleep(0.005)
    # 0.5..1 s, 1..2 s, 2..4 s: four or five logins fit into 6 s, without back-off hundreds.
    assert 3 <= proxy.accepted <= 5
    proxy.close()


def test_a_broker_that_talks_nonsense_is_survived(make_sink: MakeSink) -> None:
    rng = random.Random(13)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sink = make_sink(listener.getsockname()[1])
        for n in range(40):
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                if n % 2:
                    peer.sendall(b"\x20\x03\x00\x00\x00")
                peer.sendall(bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 200))))
                time.sleep(0.01)
            sink._backoff.worked()
            sink._stopping.wait = lambda _seconds: False  # the waits are tested elsewhere
        assert sink._thread.is_alive()
        del sink._stopping.wait


def test_stop_is_quick_while_nothing_answers(make_sink: MakeSink) -> None:
    sink = make_sink(free_port())
    time.sleep(0.2)
    started = time.monotonic()
    sink.stop()
    assert time.monotonic() - started < 2.0
