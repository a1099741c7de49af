import base64
import hashlib
import socket
import threading
from typing import Iterator, List

import pytest

from edgecount.capture._rtsp_probe import Address, Cause, authorization, knock, parse, probe

OK = "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
DIGEST = (
    "RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n"
    'WWW-Authenticate: Basic realm="cam"\r\n'
    'WWW-Authenticate: Digest realm="cam", nonce="abc"\r\n\r\n'
)


class Server:
    """Answers each request with the next of ``answers``; None stays silent."""

    def __init__(self, answers: "List[str | None]") -> None:
        self.requests: List[str] = []
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._socket.settimeout(5.0)
        connection, _ = self._socket.accept()
        with connection:
            for answer in self._answers:
                request = connection.recv(65536).decode()
                self.requests.append(request)
                if answer is None:
                    self._done.wait(5.0)
                    return
                connection.sendall(answer.encode())

    def close(self) -> None:
        self._done.set()
        self._thread.join(5.0)
        self._socket.close()


@pytest.fixture
def serve() -> "Iterator[object]":
    servers: List[Server] = []

    def start(*answers: "str | None") -> Server:
        servers.append(Server(list(answers)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class TestParse:
    def test_all_parts(self) -> None:
        assert parse("rtsp://me:pw@10.0.0.5:8554/stream?channel=1") == Address(
            False, "10.0.0.5", 8554, "me", "pw", "rtsp://10.0.0.5:8554/stream?channel=1"
        )

    def test_defaults(self) -> None:
        address = parse("rtsp://cam/x")
        assert address is not None
        assert (address.port, address.user, address.password) == (554, None, "")
        secure = parse("RTSPS://cam/x")
        assert secure is not None
        assert (secure.secure, secure.port) == (True, 322)

    def test_a_password_may_hold_an_at_sign_and_a_colon(self) -> None:
        address = parse("rtsp://me:p@s:s@cam/x")
        assert address is not None
        assert (address.user, address.password, address.host) == ("me", "p@s:s", "cam")

    def test_escapes_are_decoded(self) -> None:
        address = parse("rtsp://me:p%2Fw%40@cam/x")
        assert address is not None
        assert address.password == "p/w@"

    def test_ipv6(self) -> None:
        address = parse("rtsp://[fe80::1]:8554/x")
        assert address is not None
        assert (address.host, address.port) == ("fe80::1", 8554)

    @pytest.mark.parametrize(
        "url", ["rtsp://", "rtsp:///x", "rtsp://cam:99999/x", "rtsp://cam:x/", "http://cam/x", ""]
    )
    def test_what_is_no_rtsp_url(self, url: str) -> None:
        assert parse(url) is None


class TestAuthorization:
    def test_digest_as_the_rfc_computes_it(self) -> None:
        # RFC 2617, section 3.5, with its method and URI.
        address = Address(False, "h", 554, "Mufasa", "Circle Of Life", "/dir/index.html")
        challenge = (
            'Digest realm="testrealm@host.com", qop="auth,auth-int", '
            'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
        )
        header = authorization(challenge, address, "GET", "0a4f113b")
        assert header is not None
        assert 'response="6629fae49393a05397450978507c4ef1"' in header
        assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in header

    def test_digest_without_qop(self) -> None:
        address = Address(False, "h", 554, "u", "p", "rtsp://h/x")
        header = authorization('Digest realm="r", nonce="n"', address, "DESCRIBE", "c")
        secret = hashlib.md5(b"u:r:p").hexdigest()
        request = hashlib.md5(b"DESCRIBE:rtsp://h/x").hexdigest()
        expected = hashlib.md5(f"{secret}:n:{request}".encode()).hexdigest()
        assert header is not None
        assert f'response="{expected}"' in header
        assert "qop" not in header

    def test_basic(self) -> None:
        address = Address(False, "h", 554, "u", "p", "rtsp://h/x")
        header = authorization('Basic realm="r"', address, "DESCRIBE", "c")
        assert header == "Basic " + base64.b64encode(b"u:p").decode()

    @pytest.mark.parametrize(
        "challenge", ["Negotiate", "", 'Digest algorithm="SHA-512", nonce="x"']
    )
    def test_what_is_not_understood(self, challenge: str) -> None:
        address = Address(False, "h", 554, "u", "p", "rtsp://h/x")
        assert authorization(challenge, address, "DESCRIBE", "c") is None


class TestProbe:
    def test_described(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(OK)
        assert probe(f"rtsp://127.0.0.1:{server.port}/x", 5.0).cause is Cause.NONE
        assert server.requests[0].startswith(f"DESCRIBE rtsp://127.0.0.1:{server.port}/x RTSP/1.0")

    def test_login_is_answered_with_digest_and_accepted(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(DIGEST, OK)
        assert probe(f"rtsp://u:secret@127.0.0.1:{server.port}/x", 5.0).cause is Cause.NONE
        assert "Authorization: Digest" in server.requests[1]
        assert "secret" not in "".join(server.requests)

    def test_login_refused(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(DIGEST, DIGEST)
        url = f"rtsp://u:secret@127.0.0.1:{server.port}/x"
        assert probe(url, 5.0).cause is Cause.LOGIN_REFUSED

    def test_login_needed(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(DIGEST)
        assert probe(f"rtsp://127.0.0.1:{server.port}/x", 5.0).cause is Cause.LOGIN_NEEDED

    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            ("RTSP/1.0 404 Not Found\r\n\r\n", Cause.NOT_FOUND),
            ("RTSP/1.0 403 Forbidden\r\n\r\n", Cause.LOGIN_REFUSED),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", Cause.NOT_RTSP),
            ("RTSP/1.0 503 Service Unavailable\r\n\r\n", Cause.OTHER),
        ],
    )
    def test_status(self, serve, answer: str, cause: Cause) -> None:  # type: ignore[no-untyped-def]
        server = serve(answer)
        assert probe(f"rtsp://127.0.0.1:{server.port}/x", 5.0).cause is cause

    def test_the_status_is_passed_on(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve("RTSP/1.0 453 Not Enough Bandwidth\r\n\r\n")
        finding = probe(f"rtsp://127.0.0.1:{server.port}/x", 5.0)
        assert finding.detail == "453 Not Enough Bandwidth"

    def test_silence(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(None)
        assert probe(f"rtsp://127.0.0.1:{server.port}/x", 0.2).cause is Cause.SILENT

    def test_refused(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            assert probe(f"rtsp://127.0.0.1:{port}/x", 5.0).cause is Cause.REFUSED

    def test_reset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def reset(*args: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(socket, "create_connection", reset)
        finding = probe("rtsp://cam/x", 5.0)
        assert (finding.cause, finding.detail) == (Cause.OTHER, "it closed the connection")

    def test_unknown_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*args: object) -> None:
            raise socket.gaierror

        monkeypatch.setattr(socket, "create_connection", unknown)
        assert probe("rtsp://nowhere.invalid/x", 5.0).cause is Cause.UNKNOWN_HOST

    def test_bad_url(self) -> None:
        assert probe("rtsp://", 5.0).cause is Cause.BAD_URL


class TestKnock:
    @pytest.mark.parametrize("answer", [OK, DIGEST, "RTSP/1.0 405 Method Not Allowed\r\n\r\n"])
    def test_any_answer_is_a_sign_of_life(self, serve, answer: str) -> None:  # type: ignore[no-untyped-def]
        server = serve(answer)
        assert knock(f"rtsp://127.0.0.1:{server.port}/x", 5.0).cause is Cause.NONE
        assert server.requests[0].startswith("OPTIONS ")

    def test_another_protocol(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve("SSH-2.0-OpenSSH_9.2\r\n")  # and waits for us
        assert knock(f"rtsp://127.0.0.1:{server.port}/x", 5.0).cause is Cause.NOT_RTSP

    def test_silence(self, serve) -> None:  # type: ignore[no-untyped-def]
        server = serve(None)
        assert knock(f"rtsp://127.0.0.1:{server.port}/x", 0.2).cause is Cause.SILENT
