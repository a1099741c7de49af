"""Ask an RTSP server whether it is there, and why it gives no pictures.

FFmpeg through OpenCV says only that opening failed. This asks the server itself, over
TCP: ``OPTIONS``, which changes nothing at the server, or ``DESCRIBE``, with a login where
it asks for one (RFC 2326; RFC 7616 for Digest, RFC 7617 for Basic).
"""

import base64
import enum
import hashlib
import re
import secrets
import socket
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple
from urllib.parse import unquote

_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}
_LARGEST_HEADER = 65536
_URL = re.compile(r"(?P<scheme>rtsps?)://(?P<authority>[^/]*)(?P<path>.*)", re.IGNORECASE)


class Cause(enum.Enum):
    """Why there are no pictures."""

    NONE = "the server describes the stream"
    BAD_URL = "the URL is malformed"
    UNKNOWN_HOST = "the host's name is not known"
    REFUSED = "nothing listens on the port"
    UNREACHABLE = "the host cannot be reached"
    SILENT = "no answer"
    NOT_RTSP = "the server does not speak RTSP"
    LOGIN_NEEDED = "the server asks for a login"
    LOGIN_REFUSED = "the login was refused"
    NOT_FOUND = "there is no such stream"
    OTHER = "the server refused"


@dataclass(frozen=True)
class Finding:
    """The cause, and what the server said where that helps."""

    cause: Cause
    detail: str = ""


@dataclass(frozen=True)
class Address:
    """The parts of an RTSP URL; ``url`` is the URL without the login."""

    secure: bool
    host: str
    port: int
    user: Optional[str]
    password: str
    url: str


def parse(url: str) -> Optional[Address]:
    """Take an RTSP URL apart, as FFmpeg does: the login ends at the last ``@``.

    Returns None for what is no RTSP URL.
    """
    match = _URL.fullmatch(url)
    if not match:
        return None
    login, has_login, place = match.group("authority").rpartition("@")
    host, port = _host_and_port(place)
    scheme = match.group("scheme").lower()
    if not host or port is None:
        return None
    user, _, password = login.partition(":")
    return Address(
        secure=scheme == "rtsps",
        host=host,
        port=port or _DEFAULT_PORTS[scheme],
        user=unquote(user) if has_login else None,
        password=unquote(password),
        url=f"{scheme}://{place}{match.group('path')}",
    )


def knock(url: str, timeout: float) -> Finding:
    """Find out whether an RTSP server answers at ``url``; takes about ``timeout`` at most."""
    return _talk(url, timeout, _options)


def probe(url: str, timeout: float) -> Finding:
    """Find out why ``url`` cannot be opened; takes at most about twice ``timeout`` seconds."""
    return _talk(url, timeout, _describe)


def authorization(challenge: str, address: Address, method: str, cnonce: str) -> Optional[str]:
    """The ``Authorization`` header that answers ``challenge``, or None if it is not understood."""
    scheme, _, rest = challenge.partition(" ")
    user = address.user or ""
    if scheme.lower() == "basic":
        login = f"{user}:{address.password}".encode()
        return "Basic " + base64.b64encode(login).decode()
    if scheme.lower() != "digest":
        return None
    fields = {k.lower(): v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', rest)}
    return _digest(fields, address, method, cnonce)


def _digest(fields: Dict[str, str], address: Address, method: str, cnonce: str) -> Optional[str]:
    algorithm = fields.get("algorithm", "MD5")
    if algorithm.upper() not in ("MD5", "SHA-256"):
        return None

    def digest(*parts: str) -> str:
        text = ":".join(parts).encode()
        # MD5 is what RTSP cameras ask for; nothing rests on its strength here.
        return (hashlib.md5 if algorithm.upper() == "MD5" else hashlib.sha256)(text).hexdigest()

    user, realm, nonce = address.user or "", fields.get("realm", ""), fields.get("nonce", "")
    secret = digest(user, realm, address.password)
    request = digest(method, address.url)
    header = (
        f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{address.url}", '
        f"algorithm={algorithm}"
    )
    if "opaque" in fields:
        header += f', opaque="{fields["opaque"]}"'
    if "auth" not in fields.get("qop", "").split(","):
        return f'{header}, response="{digest(secret, nonce, request)}"'
    response = digest(secret, nonce, "00000001", cnonce, "auth", request)
    return f'{header}, qop=auth, nc=00000001, cnonce="{cnonce}", response="{response}"'


def _talk(url: str, timeout: float, ask: Callable[[socket.socket, Address], Finding]) -> Finding:
    """Connect and ask; what goes wrong on the way is a finding, too."""
    address = parse(url)
    if address is None:
        return Finding(Cause.BAD_URL)
    try:
        with socket.create_connection((address.host, address.port), timeout) as connection:
            return Finding(Cause.NONE) if address.secure else ask(connection, address)
    except socket.gaierror:
        return Finding(Cause.UNKNOWN_HOST)
    except ConnectionRefusedError:
        return Finding(Cause.REFUSED)
    except socket.timeout:
        return Finding(Cause.SILENT)
    except (ConnectionResetError, BrokenPipeError):
        return Finding(Cause.OTHER, "it closed the connection")
    except UnicodeError:
        return Finding(Cause.BAD_URL)
    except OSError as error:
        return Finding(Cause.UNREACHABLE, error.strerror or str(error))


def _options(connection: socket.socket, address: Address) -> Finding:
    status, _, _ = _ask(connection, "OPTIONS", address, None, 1)
    return Finding(Cause.NONE if status else Cause.NOT_RTSP)


def _describe(connection: socket.socket, address: Address) -> Finding:
    status, reason, challenge = _ask(connection, "DESCRIBE", address, None, 1)
    if status == 401 and address.user is None:
        return Finding(Cause.LOGIN_NEEDED)
    if status == 401:
        login = authorization(challenge, address, "DESCRIBE", secrets.token_hex(8))
        if login is None:
            return Finding(Cause.OTHER, f"it asks for the login {challenge.split(' ')[0]!r}")
        status, reason, _ = _ask(connection, "DESCRIBE", address, login, 2)
    return _judge(status, reason)


def _judge(status: int, reason: str) -> Finding:
    if status == 0:
        return Finding(Cause.NOT_RTSP)
    if status == 200:
        return Finding(Cause.NONE)
    if status in (401, 403):
        return Finding(Cause.LOGIN_REFUSED)
    if status == 404:
        return Finding(Cause.NOT_FOUND)
    return Finding(Cause.OTHER, f"{status} {reason}".strip())


def _ask(
    connection: socket.socket, method: str, address: Address, login: Optional[str], number: int
) -> Tuple[int, str, str]:
    """Send a request; the status (0: not RTSP), its reason and the login it asks for."""
    lines = [f"{method} {address.url} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp"]
    if login:
        lines.append(f"Authorization: {login}")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = _header(connection)
    match = re.match(r"RTSP/\d\.\d (\d{3}) ?([^\r\n]{0,80})", answer)
    if not match:
        return 0, "", ""
    challenges = re.findall(r"^WWW-Authenticate: *([^\r\n]*)", answer, re.IGNORECASE | re.MULTILINE)
    digests = [c for c in challenges if c.lower().startswith("digest")]
    return int(match.group(1)), match.group(2), (digests or challenges or [""])[0]


def _header(connection: socket.socket) -> str:
    """What the server says up to the end of its header, or until it cannot be RTSP."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < _LARGEST_HEADER:
        part = connection.recv(4096)
        received += part
        if not part or received[:4] != b"RTSP"[: len(received)]:
            break
    return received.decode("utf-8", "replace")


def _host_and_port(place: str) -> Tuple[str, Optional[int]]:
    """Host and port (0 where none is given, None where it is no number)."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d{0,5}))?", place)
    if not match:
        return "", None
    port = int(match.group(2) or 0)
    return match.group(1).strip("[]"), port if port <= 65535 else None
