"""A real broker for tests: mosquitto with its own configuration, ports, users and certificates."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion


def find_mosquitto() -> str:
    """The broker's executable, or skip the test."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.skip("mosquitto is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout: float = 10.0, what: str = "") -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what or condition}"
        time.sleep(0.01)


class Broker:
    """One mosquitto; ``lines`` are put into its configuration."""

    def __init__(
        self, folder: Path, lines: str = "allow_anonymous true", *, persistent: bool = False
    ) -> None:
        self._executable = find_mosquitto()
        self.folder = folder
        self.port = free_port()
        self.log = folder / "broker.log"
        self._lines = lines
        self._persistent = persistent
        self._process: Optional[subprocess.Popen] = None

    def start(self) -> "Broker":
        # The port first: listener options such as certificates belong to the last listener.
        config = f"listener {self.port} 127.0.0.1\n{self._lines}\nuser root\nlog_type all\n"
        # The default drops what a slow subscriber has not taken after 1,000 messages.
        config += "max_queued_messages 0\n"
        if self._persistent:
            config += (
                f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\n"
                "autosave_on_changes true\n"
            )
        path = self.folder / "mosquitto.conf"
        path.write_text(config)
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [self._executable, "-c", str(path)], stdout=log, stderr=log
            )
        wait_until(self._listens, 5.0, f"mosquitto, see {self.log}")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(5)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class Received(NamedTuple):
    topic: str
    payload: bytes
    retained: bool
    at: float

    def json(self) -> Dict[str, object]:
        parsed: Dict[str, object] = json.loads(self.payload)
        return parsed


class Subscriber:
    """An independent client that remembers everything it gets, and reconnects by itself."""

    def __init__(
        self,
        port: int,
        topic: str = "#",
        client_id: str = "test-subscriber",
        *,
        username: Optional[str] = None,
        password: Optional[str] = None,
        durable: bool = False,
    ) -> None:
        self.messages: List[Received] = []
        self._subscribed = threading.Event()
        self._topic = topic
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=not durable
        )
        self._client.reconnect_delay_set(1, 1)
        if username:
            self._client.username_pw_set(username, password)
        self._client.on_connect = lambda c, *_: c.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.messages.append(
            Received(message.topic, bytes(message.payload), message.retain, time.monotonic())
        )

    def on(self, topic: str) -> List[Received]:
        return [m for m in list(self.messages) if m.topic == topic]

    def last(self, topic: str) -> Optional[bytes]:
        found = self.on(topic)
        return found[-1].payload if found else None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Proxy:
    """A TCP proxy on loopback that can cut, freeze or refuse connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self._pairs: List[List[socket.socket]] = []
        self._cut_after: Optional[int] = None
        self.refusing = False
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection now."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _close(end)

    def cut_after(self, count: int) -> None:
        """Let ``count`` more bytes through to the broker, then cut: in the middle of a packet."""
        self._cut_after = count

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.refusing:
                _close(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 2)
            except OSError:
                _close(near)
                continue
            self._pairs.append([near, far])
            for source, sink, outward in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._forward, args=(source, sink, outward), daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        try:
            while True:
                data = source.recv(4096)
                if not data:
                    break
                if outward and self._cut_after is not None:
                    sink.sendall(data[: self._cut_after])
                    self._cut_after -= len(data)
                    if self._cut_after <= 0:
                        self._cut_after = None
                        break
                    continue
                sink.sendall(data)
        except OSError:
            pass
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


class Certificates(NamedTuple):
    """A CA, a good server certificate, bad ones, and a client's."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def listener(self, server: str, *, require_client: bool = False) -> str:
        lines = (
            f"cafile {self.path('ca.pem')}\ncertfile {self.path(server + '.pem')}\n"
            f"keyfile {self.path(server + '.key')}\nallow_anonymous true"
        )
        return lines + ("\nrequire_certificate true" if require_client else "")


def make_certificates(folder: Path) -> Certificates:
    """Make all certificates with the openssl command, or skip the test."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    for ca in ("ca", "stranger"):
        _openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
            "-subj", f"/CN=test {ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem",
        )  # fmt: skip
    _leaf(folder, "server", "ca", "DNS:localhost,IP:127.0.0.1")
    _leaf(folder, "wronghost", "ca", "DNS:elsewhere.example")
    _leaf(folder, "unknown", "stranger", "DNS:localhost,IP:127.0.0.1")
    _leaf(folder, "expired", "ca", "DNS:localhost,IP:127.0.0.1", expired=True)
    _leaf(folder, "client", "ca", "DNS:client")
    return Certificates(folder)


def _leaf(folder: Path, name: str, ca: str, names: str, *, expired: bool = False) -> None:
    _openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
    if not expired:
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey",
            f"{ca}.key", "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext",
            "-out", f"{name}.pem",
        )  # fmt: skip
        return
    # Only `openssl ca` can set both ends of the validity in OpenSSL 1.1.
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("1000\n")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    _openssl(
        folder, "ca", "-batch", "-config", "ca.cnf", "-cert", f"{ca}.pem", "-keyfile",
        f"{ca}.key", "-in", f"{name}.csr", "-extfile", f"{name}.ext", "-startdate",
        "20200101000000Z", "-enddate", "20200201000000Z", "-out", f"{name}.pem",
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
