"""Install edgecount as a systemd service: what is written and what is run, as data first.

``plan`` is pure but for reading the unit templates and the names of credentials;
``carry_out`` does what the plan says, or nothing where a dry run only shows it.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from edgecount.errors import ConfigError, EdgecountError

_TEMPLATE_EXECUTABLE = "/opt/edgecount/bin/edgecount"
_UNITS = Path("etc/systemd/system")
_CREDENTIALS = Path("etc/edgecount/credentials")
Command = Tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What an installation does.

    Attributes:
        files: Contents by absolute path.
        commands: Run in this order after the files are written.
        notes: What is left for a person to do.
    """

    files: Dict[Path, str]
    commands: Tuple[Command, ...]
    notes: Tuple[str, ...]


def plan(
    executable: Path,
    instances: Sequence[str] = (),
    maxperf: bool = False,
    root: Path = Path("/"),
) -> Plan:
    """The installation of one service, or of one per instance.

    Args:
        executable: The ``edgecount`` command that the service runs.
        instances: Names; each reads ``/etc/edgecount/NAME.yaml``. None: one service that
            reads ``/etc/edgecount/edgecount.yaml``.
        maxperf: Also hold a Jetson in its fastest power mode.
        root: Under which files are looked for; paths in the plan do not contain it.

    Raises:
        ConfigError: The service could not run this executable.
    """
    _check_reachable(executable)
    services = [f"edgecount@{name}.service" for name in instances] or ["edgecount.service"]
    template = "edgecount@.service" if instances else "edgecount.service"
    files = {
        _absolute(_UNITS / template): _unit(template, executable),
        Path("/etc/sysusers.d/edgecount.conf"): _template("edgecount.sysusers"),
        Path("/etc/tmpfiles.d/edgecount.conf"): _template("edgecount.tmpfiles"),
    }
    for service in services:
        files.update(_credentials(service, root))
    if maxperf:
        name = "edgecount-maxperf.service"
        files[_absolute(_UNITS / name)] = _template(name)
        services.insert(0, name)
    started, notes = _start(services, root)
    prepare: List[Command] = [
        ("systemd-sysusers", "/etc/sysusers.d/edgecount.conf"),
        ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/edgecount.conf"),
        ("systemctl", "daemon-reload"),
    ]
    return Plan(files, (*prepare, *started), notes)


def carry_out(
    to_do: Plan,
    run: Optional[Callable[[Command], None]] = None,
    root: Path = Path("/"),
) -> None:
    """Write the files and run the commands.

    Args:
        run: Runs one command; the real thing where not given.
        root: Prefix of every file, for tests.

    Raises:
        EdgecountError: A file cannot be written or a command fails.
    """
    for path, content in to_do.files.items():
        _write(root / path.relative_to("/"), content)
    for command in to_do.commands:
        (run or _run)(command)


def own_executable(argv0: str) -> Path:
    """The ``edgecount`` command that was called as ``argv0``.

    Raises:
        ConfigError: It was not called by that command (``python -m edgecount``, say).
    """
    found = shutil.which(argv0)
    if found is None or Path(found).name != "edgecount":
        raise ConfigError(
            "cannot tell which edgecount command the service should run; "
            "name it with --executable /opt/edgecount/bin/edgecount"
        )
    return Path(found).absolute()


def _check_reachable(executable: Path) -> None:
    if executable.parts[:2] in (("/", "root"), ("/", "home"), ("/", "tmp")):
        raise ConfigError(
            f"{executable} lies in a folder that the service's user cannot see; install edgecount "
            "outside of it (python3 -m venv /opt/edgecount && /opt/edgecount/bin/pip install "
            "edgecount), or name another command with --executable"
        )


def _unit(template: str, executable: Path) -> str:
    return _template(template).replace(_TEMPLATE_EXECUTABLE, str(executable))


def _credentials(service: str, root: Path) -> Dict[Path, str]:
    """A drop-in that loads every secret of the folder, where there are any."""
    folder = root / _CREDENTIALS
    names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    if not names:
        return {}
    lines = [f"LoadCredential={name}:{_absolute(_CREDENTIALS / name)}" for name in names]
    drop_in = _absolute(_UNITS / f"{service}.d" / "credentials.conf")
    return {drop_in: "\n".join(["[Service]", *lines, ""])}


def _start(services: Sequence[str], root: Path) -> Tuple[List[Command], Tuple[str, ...]]:
    """Start what has a configuration; what has none is only enabled."""
    commands: List[Command] = []
    notes: List[str] = []
    for service in services:
        config = _configuration(service)
        if config is None or (root / config).is_file():
            commands.append(("systemctl", "enable", "--now", service))
        else:
            commands.append(("systemctl", "enable", service))
            where = _absolute(config)
            notes.append(f"write {where}, then:  systemctl start {service}")
    return commands, tuple(notes)


def _configuration(service: str) -> Optional[Path]:
    if service == "edgecount-maxperf.service":
        return None
    name = service[: -len(".service")].partition("@")[2] or "edgecount"
    return Path("etc/edgecount") / f"{name}.yaml"


def _absolute(path: Path) -> Path:
    return Path("/") / path


def _template(name: str) -> str:
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_data" / "systemd", package.parent / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise EdgecountError(f"the unit {name} did not come with this installation; install it again")


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105 - atomic, and on Python 3.8 too
    except PermissionError as error:
        raise EdgecountError(f"cannot write {path}: run this command with sudo") from error
    except OSError as error:
        raise EdgecountError(f"cannot write {path}: {error.strerror}") from error


def _run(command: Command) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except FileNotFoundError as error:
        raise EdgecountError(
            f"{command[0]} is not there: this machine is not run by systemd; "
            "use a container, or your own init system with 'edgecount run'"
        ) from error
    if done.returncode != 0:
        raise EdgecountError(f"{' '.join(command)} failed: {done.stdout.strip()}")
