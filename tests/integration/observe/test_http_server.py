import http.client
import json
import socket
import threading
import time

import psutil
import pytest

from edgecount.errors import EdgecountError
from edgecount.observe import http as http_module
from edgecount.observe.health import Health
from edgecount.observe.http import Answer, HttpServer, routes
from edgecount.observe.metrics import Metrics

pytestmark = pytest.mark.integration


def table():
    def broken(_):
        raise RuntimeError("the secret is hunter2")

    answers = routes(Metrics().registry, Health(), dict, str)
    return {**answers, "/broken": broken, "/big": lambda _: Answer(200, "text/plain", b"x" * 10**7)}


@pytest.fixture
def server():
    running = HttpServer("127.0.0.1", 0, table())
    yield running
    running.close()


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_answers_over_the_wire(server):
    status, headers, body = get(server, "/healthz")
    assert status == 200
    assert json.loads(body)["alive"] is True
    assert headers["Server"] == "edgecount"
    assert get(server, "/readyz?verbose=1")[0] == 503
    assert get(server, "/metrics")[2].startswith(b"# HELP")


def test_head_has_no_body(server):
    status, headers, body = get(server, "/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(server, method):
    assert get(server, "/metrics", method)[0] == 501


def test_an_unknown_path_does_not_echo_the_request(server):
    status, _, body = get(server, "/<script>hunter2</script>")
    assert (status, body) == (404, b"404 Not Found\n")


def test_a_defect_in_a_route_is_logged_and_not_shown(server):
    status, _, body = get(server, "/broken")
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert get(server, "/healthz")[0] == 200


def test_a_taken_port_names_address_and_remedy(server):
    with pytest.raises(EdgecountError) as caught:
        HttpServer("127.0.0.1", server.port, {})
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "http.port" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("bind", ["192.0.2.1", "no such host!"])
def test_a_wrong_address_names_the_key(bind):
    with pytest.raises(EdgecountError, match=r"http\.bind"):
        HttpServer(bind, 0, {})


def test_ipv6():
    try:
        server = HttpServer("::1", 0, table())
    except EdgecountError:
        pytest.skip("no IPv6 here")
    with socket.create_connection(("::1", server.port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in client.recv(100)
    server.close()


def test_garbage_is_answered_or_cut_off(server):
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"\r\n\r\n"):
        with connect(server) as client:
            client.sendall(garbage)
            client.recv(1000)
    assert get(server, "/healthz")[0] == 200


def test_an_endless_request_is_cut_off(server):
    with connect(server) as client, pytest.raises(OSError):  # noqa: PT012
        client.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(10_000):
            client.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")
    assert get(server, "/healthz")[0] == 200


def test_silent_and_slow_clients_are_cut_off_and_block_nobody(server, monkeypatch):
    monkeypatch.setattr(http_module, "_REQUEST_S", 1.0)
    silent = [connect(server) for _ in range(8)]
    slow = connect(server)
    begun = time.monotonic()
    assert get(server, "/healthz")[0] == 200
    assert time.monotonic() - begun < 1.0
    cut_off_after = drip(slow)
    assert 0.5 < cut_off_after < 3.0
    for client in silent:
        assert client.recv(10) == b""
        client.close()


def drip(client):
    """Seconds until a client that sends a byte now and then is cut off."""
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < 8.0:
            client.sendall(b"X")
            time.sleep(0.1)
    except OSError:
        pass
    finally:
        client.close()
    return time.monotonic() - begun


def test_many_connections_do_not_make_many_threads(server):
    before = threading.active_count()
    crowd = [connect(server) for _ in range(60)]
    time.sleep(0.3)
    assert threading.active_count() - before <= 16
    for client in crowd:
        client.close()
    time.sleep(0.3)
    assert get(server, "/healthz")[0] == 200


def test_a_reader_that_stops_reading_is_dropped(server, monkeypatch):
    monkeypatch.setattr(http_module, "_REQUEST_S", 1.0)
    before = threading.active_count()
    with connect(server) as client:
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        time.sleep(2.5)
        assert threading.active_count() <= before
    assert get(server, "/healthz")[0] == 200


def test_close_is_quick_even_with_a_client_that_hangs():
    server = HttpServer("127.0.0.1", 0, table())
    client = connect(server)
    begun = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - begun < 1.0
    client.close()
    with pytest.raises(OSError):
        connect(server)


def test_an_idle_server_costs_nothing(server):
    get(server, "/healthz")
    process = psutil.Process()
    (thread,) = (t for t in threading.enumerate() if t.name == "http")

    def spent():
        (times,) = (t for t in process.threads() if t.id == thread.native_id)
        return times.user_time + times.system_time

    before = spent()
    time.sleep(1.0)
    assert spent() == before


def test_nothing_leaks_over_many_requests(server):
    get(server, "/metrics")
    before = psutil.Process().num_fds()
    for _ in range(100):
        get(server, "/metrics")
    assert psutil.Process().num_fds() <= before + 1
