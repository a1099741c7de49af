"""The one HTTP server: a small table of routes that only answers GET and HEAD.

A route is a function without I/O that returns an :class:`Answer`, so that the same table
can be served by another server (the web application mounts it). The server itself is the
standard library's, on a daemon thread that sleeps until a connection comes; a client that
is slow, silent or sends too much is cut off and cannot hold up the others.
"""

import contextlib
import errno
import html
import io
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from edgecount.errors import EdgecountError
from edgecount.observe.health import Health, Report
from edgecount.observe.redaction import Redact, redact_deep

_REQUEST_S = 5.0
_REQUEST_BYTES = 8192
_CONNECTIONS = 16
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a route says."""

    status: int
    content_type: str
    body: bytes


Headers = Mapping[str, str]
Route = Callable[[Headers], Answer]


def json_answer(status: int, value: object, redact: Redact) -> Answer:
    """``value`` as JSON, with secrets redacted."""
    body = json.dumps(redact_deep(value, redact), ensure_ascii=False) + "\n"
    return Answer(status, "application/json; charset=utf-8", body.encode("utf-8"))


def routes(
    registry: CollectorRegistry,
    health: Health,
    state: Callable[[], Mapping[str, Any]],
    redact: Redact,
) -> Dict[str, Route]:
    """The routes of a service: metrics, liveness, readiness, state, and a list of these.

    Args:
        registry: What ``/metrics`` exposes.
        health: What ``/healthz`` and ``/readyz`` report.
        state: The present state as JSON values; must return at once.
        redact: Masks secrets in every text that leaves.
    """

    def metrics(headers: Headers) -> Answer:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        return Answer(HTTPStatus.OK, content_type, encode(registry))

    def healthz(_: Headers) -> Answer:
        return _report("alive", health.alive(), redact)

    def readyz(_: Headers) -> Answer:
        return _report("ready", health.ready(), redact)

    def api_state(_: Headers) -> Answer:
        return json_answer(HTTPStatus.OK, state(), redact)

    table: Dict[str, Route] = {
        "/metrics": metrics,
        "/healthz": healthz,
        "/readyz": readyz,
        "/api/state": api_state,
    }
    page = _index(tuple(table))
    table["/"] = lambda _: page
    return table


def _report(name: str, report: Report, redact: Redact) -> Answer:
    status = HTTPStatus.OK if report.ok else HTTPStatus.SERVICE_UNAVAILABLE
    body = {name: report.ok, "reasons": report.reasons, **report.details}
    return json_answer(status, body, redact)


def _index(paths: Tuple[str, ...]) -> Answer:
    links = "".join(f'<li><a href="{html.escape(p)}">{html.escape(p)}</a></li>' for p in paths)
    page = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>edgecount</title>'
        f"<h1>edgecount</h1><ul>{links}</ul></html>\n"
    )
    return Answer(HTTPStatus.OK, "text/html; charset=utf-8", page.encode("utf-8"))


class HttpServer:
    """Serves a table of routes until it is closed.

    Args:
        bind: Address to listen on; one with a colon is IPv6.
        port: Port; 0 takes any free one (see ``port`` afterwards).
        table: Routes by path.

    Raises:
        EdgecountError: The address cannot be listened on; the message names it and what to do.
    """

    def __init__(self, bind: str, port: int, table: Mapping[str, Route]) -> None:
        self._server = _listen(bind, port, table)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self._thread.is_alive():
            # Wakes the select that would otherwise sleep on; see _serve.
            _hang_up(self._server.socket)
            self._server.shutdown()
            self._thread.join(_REQUEST_S)
        self._server.server_close()

    def _serve(self) -> None:
        # The interval only bounds how late a shutdown is seen, and close() wakes the loop
        # itself: an idle server costs nothing.
        self._server.serve_forever(poll_interval=3600.0)


def _listen(bind: str, port: int, table: Mapping[str, Route]) -> "_Server":
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        return _Server((bind, port), family, table)
    except socket.gaierror as error:
        raise EdgecountError(
            f"cannot serve HTTP on {bind}:{port}: {bind!r} is no address of this machine; "
            "set http.bind to one (127.0.0.1, or 0.0.0.0 for all)"
        ) from error
    except OSError as error:
        raise EdgecountError(_why_not(bind, port, error)) from error


def _why_not(bind: str, port: int, error: OSError) -> str:
    where = f"cannot serve HTTP on {bind}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where}: another program listens there (ss -ltnp 'sport = :{port}' names it); "
            "stop it, or set http.port to a free port (0 takes any)"
        )
    if error.errno == errno.EACCES:
        return f"{where}: ports below 1024 need a privilege; set http.port to a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{where}: no interface of this machine has that address; "
            "set http.bind to one that it has (127.0.0.1, or 0.0.0.0 for all)"
        )
    return f"{where}: {error.strerror or error}; set http.bind and http.port to a usable address"


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be gone already
        sock.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads are few and short-lived; waiting for a slow client must not delay the exit.
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self, address: Tuple[str, int], family: socket.AddressFamily, table: Mapping[str, Route]
    ) -> None:
        self.address_family = family
        self.table = table
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host's name, which can hang without DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that went away in the middle is no event; anything else is a defect."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("http_request_failed")


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, then the connection closes."""

    server: _Server
    timeout = _REQUEST_S

    def handle(self) -> None:
        head = self._read_head()
        if head is not None:
            self.rfile = io.BytesIO(head)
            self.handle_one_request()

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def version_string(self) -> str:
        return "edgecount"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes are no events."""

    def send_error(
        self, code: int, message: Optional[str] = None, explain: Optional[str] = None
    ) -> None:
        # The standard page repeats the request, which may hold whatever a client sent.
        del message, explain
        text = f"{int(code)} {HTTPStatus(code).phrase}\n"
        self._send(Answer(code, "text/plain; charset=utf-8", text.encode("ascii")), True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?", 1)[0]
        route = self.server.table.get(path)
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            answer = route({k.lower(): v for k, v in self.headers.items()})
        except Exception:  # a defect in one route must neither kill the server nor go unseen
            _log.exception("http_request_failed", path=path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._send(answer, with_body)

    def _send(self, answer: Answer, with_body: bool) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def _read_head(self) -> Optional[bytes]:
        """The request up to its empty line, or None from a client that is too slow or too wordy.

        The socket's time-out alone would let a client live for ever that sends a byte now
        and then; here the whole head has one deadline.
        """
        deadline = time.monotonic() + _REQUEST_S
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > _REQUEST_BYTES:
                return None
            self.connection.settimeout(left)
            chunk = self.connection.recv(4096)
            if not chunk:
                return None
            head += chunk
        self.connection.settimeout(_REQUEST_S)
        return head
