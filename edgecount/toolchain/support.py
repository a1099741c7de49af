"""``edgecount support-bundle``: what someone who helps needs to see, and no secret.

Every text passes one redactor that knows the configuration's secrets by value: those it
spells out, those it takes from the environment or from files, and those in URLs. The
environment itself, pictures and counts per person are not collected.
"""

import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import yaml

from edgecount import __version__
from edgecount.config import HttpSettings, Settings, load
from edgecount.count._file import ledger_path
from edgecount.errors import EdgecountError
from edgecount.redact import MASK, Redactor, url_passwords
from edgecount.toolchain.doctor.examine import examine

_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|token|credential|api_?key", re.IGNORECASE)
_SECRET_LINE = re.compile(
    r"(?im)^(\s*(?:-\s*)?\{?.*?\b(?:password|passwd|passphrase|secret|token|api_?key)\s*:\s*)"
    r"(?!\s*[\"']?\$\{)([^,}\n]+)"
)
_SUBSTITUTION = re.compile(r"\$\{([^}]*)\}")
_LOG_LINES = 5000
_BOARD_FILES = (
    "etc/nv_tegra_release",
    "etc/os-release",
    "proc/device-tree/model",
    "proc/meminfo",
    "proc/loadavg",
    "proc/driver/nvidia/version",
    "var/lib/nvpmodel/status",
)
Part = Tuple[str, str]


def write_bundle(
    config: Optional[Path],
    target: Path,
    environ: Optional[Mapping[str, str]] = None,
    root: Path = Path("/"),
) -> List[str]:
    """Collect everything into a ``.tar.gz`` that only its owner can read.

    Args:
        config: The configuration of the service, or None.
        target: The file to write.
        environ: Where ``${NAME}`` of the configuration come from.
        root: Under which the board's files lie.

    Returns:
        The names of the parts.

    Raises:
        EdgecountError: The file cannot be written.
    """
    env = os.environ if environ is None else environ
    text = _read(config) if config else ""
    redact = Redactor(secrets_of(text, env))
    settings = _settings(config)
    written = []
    try:
        with _create(target) as archive:
            for name, content in _parts(config, text, settings, root):
                _add(archive, name, redact(content))
                written.append(name)
    except OSError as error:
        raise EdgecountError(f"cannot write {target}: {error.strerror}") from error
    return written


def secrets_of(text: str, environ: Mapping[str, str]) -> List[str]:
    """All secrets that a configuration holds or refers to, also when it is invalid.

    Args:
        text: The YAML text.
        environ: The environment; variables whose name sounds like a secret count as well.
    """
    found = url_passwords(text)
    # By line as well: a text that is no YAML is quoted in the message that says so.
    found += [match.group(2).strip().strip("\"'") for match in _SECRET_LINE.finditer(text)]
    found += [value for name, value in environ.items() if _SECRET_NAME.search(name)]
    for expression in _SUBSTITUTION.findall(text):
        found += _substituted(expression, environ)
    for name, value in _leaves(_parsed(text)):
        if name.endswith("password_file"):
            found += _read(Path(value)).splitlines()[:1]
        elif _SECRET_NAME.search(name):
            found.append(value)
    return [secret for secret in found if secret and not secret.startswith("${")]


def _substituted(expression: str, environ: Mapping[str, str]) -> List[str]:
    if expression.startswith("file:"):
        return [_read(Path(expression[len("file:") :])).strip()]
    name, _, default = expression.partition(":-")
    return [value for value in (environ.get(name, ""), default) if value]


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # what it spells out is masked by line, see _masked


def _leaves(node: Any, name: str = "") -> Iterator[Tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, name)
    elif node is not None:
        yield name, str(node)


def _parts(
    config: Optional[Path], text: str, settings: Optional[Settings], root: Path
) -> Iterator[Part]:
    yield "versions.json", json.dumps(_versions(), indent=2)
    yield "doctor.json", json.dumps([f.payload() for f in examine(config, root)], indent=2)
    for name in _BOARD_FILES:
        yield f"board/{name.replace('/', '_')}", _read(root / name)
    if config:
        yield "config.yaml", _masked(text)
    if settings and settings.http.enabled:
        yield from _from_service(settings.http)
    if settings:
        yield "state.txt", _listing(ledger_path(settings.ledger.path, os.environ).parent)
    yield "journal.log", _journal()


def _masked(text: str) -> str:
    """The configuration with spelled-out secrets masked by the name of their key."""
    return _SECRET_LINE.sub(rf"\1{MASK}", text)


def _versions() -> Dict[str, object]:
    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "edgecount": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "packages": dict(sorted((str(k), v) for k, v in packages.items())),
    }


def _from_service(http: HttpSettings) -> Iterator[Part]:
    """What a running service says of itself."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.bind, http.bind)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    for path in ("/healthz", "/readyz", "/api/state", "/metrics"):
        yield f"service{path.replace('/', '_')}", _get(f"http://{shown}:{http.port}{path}")


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 - our own server
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError as error:
        return f"not there: {error}\n"
    return body.decode("utf-8", "replace")


def _listing(folder: Path) -> str:
    try:
        found = sorted(p for p in folder.iterdir() if p.is_file())
    except OSError as error:
        return f"{folder}: {error.strerror}\n"
    lines = [f"{p.stat().st_size:12d}  {p.name}" for p in found]
    return "\n".join([str(folder), *lines, ""])


def _journal(which: Callable[[str], Optional[str]] = shutil.which) -> str:
    program = which("journalctl")
    if program is None:
        return "there is no journal on this machine\n"
    command = [program, "--no-pager", "-o", "cat", "-n", str(_LOG_LINES), "-u", "edgecount*"]
    done = subprocess.run(  # noqa: S603 - fixed command
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60
    )
    return done.stdout.decode("utf-8", "replace")


def _settings(config: Optional[Path]) -> Optional[Settings]:
    try:
        return load(config) if config else None
    except EdgecountError:
        return None  # the doctor's part says what is wrong with it


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"


def _create(target: Path) -> tarfile.TarFile:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return tarfile.open(fileobj=os.fdopen(descriptor, "wb"), mode="w:gz")


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode("utf-8")
    member = tarfile.TarInfo(f"edgecount-support/{name}")
    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(data))
