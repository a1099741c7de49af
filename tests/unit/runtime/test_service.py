import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecount.cli.install_service import command
from edgecount.errors import ConfigError, EdgecountError
from edgecount.runtime.service import carry_out, own_executable, plan

UNITS = Path("/etc/systemd/system")
EXECUTABLE = Path("/opt/edgecount/bin/edgecount")
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_one_service_runs_the_given_command_and_waits_for_its_configuration(tmp_path):
    to_do = plan(Path("/srv/venv/bin/edgecount"), root=tmp_path)
    unit = to_do.files[UNITS / "edgecount.service"]
    assert "ExecStart=/srv/venv/bin/edgecount run -c /etc/edgecount/edgecount.yaml" in unit
    assert to_do.commands[-1] == ("systemctl", "enable", "edgecount.service")
    assert to_do.notes == (
        "write /etc/edgecount/edgecount.yaml, then:  systemctl start edgecount.service",
    )


def test_a_configured_service_is_started(tmp_path):
    (tmp_path / "etc/edgecount").mkdir(parents=True)
    (tmp_path / "etc/edgecount/edgecount.yaml").write_text("")
    to_do = plan(EXECUTABLE, root=tmp_path)
    assert to_do.commands[-1] == ("systemctl", "enable", "--now", "edgecount.service")
    assert to_do.notes == ()


def test_users_and_folders_come_before_the_service(tmp_path):
    programs = [c[0] for c in plan(EXECUTABLE, root=tmp_path).commands]
    assert programs == ["systemd-sysusers", "systemd-tmpfiles", "systemctl", "systemctl"]


def test_instances_and_maximum_performance(tmp_path):
    to_do = plan(EXECUTABLE, ["door", "yard"], maxperf=True, root=tmp_path)
    assert UNITS / "edgecount@.service" in to_do.files
    assert UNITS / "edgecount.service" not in to_do.files
    assert UNITS / "edgecount-maxperf.service" in to_do.files
    assert [c[-1] for c in to_do.commands[3:]] == [
        "edgecount-maxperf.service",
        "edgecount@door.service",
        "edgecount@yard.service",
    ]
    assert "--now" in to_do.commands[3]


def test_every_secret_of_the_folder_is_loaded_and_none_is_read(tmp_path):
    folder = tmp_path / "etc/edgecount/credentials"
    folder.mkdir(parents=True)
    (folder / "mqtt-password").write_text("hunter2")
    (folder / "door").write_text("hunter2")
    files = plan(EXECUTABLE, root=tmp_path).files
    assert files[UNITS / "edgecount.service.d/credentials.conf"] == (
        "[Service]\n"
        "LoadCredential=door:/etc/edgecount/credentials/door\n"
        "LoadCredential=mqtt-password:/etc/edgecount/credentials/mqtt-password\n"
    )
    assert "hunter2" not in "".join(files.values())


@pytest.mark.parametrize("where", ["/home/jane/.venv/bin", "/root/venv/bin", "/tmp/x/bin"])
def test_a_command_that_the_service_cannot_see_is_refused(where):
    with pytest.raises(ConfigError, match="/opt/edgecount"):
        plan(Path(where) / "edgecount")


def test_carries_out_files_first_then_commands(tmp_path):
    ran = []
    to_do = plan(EXECUTABLE, root=tmp_path)
    carry_out(to_do, ran.append, tmp_path)
    carry_out(to_do, ran.append, tmp_path)
    written = sorted(p.name for p in (tmp_path / "etc").rglob("*") if p.is_file())
    assert written == ["edgecount.conf", "edgecount.conf", "edgecount.service"]
    assert ran == [*to_do.commands, *to_do.commands]


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "etc").write_text("a file in the way")
    with pytest.raises(EdgecountError, match="cannot write"):
        carry_out(plan(EXECUTABLE, root=tmp_path), lambda _: None, tmp_path)


def test_a_command_that_fails_is_an_error_with_its_words(tmp_path, monkeypatch):
    failing = tmp_path / "systemctl"
    failing.write_text("#!/bin/sh\necho no bus\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgecountError, match="systemd-sysusers is not there"):
        carry_out(plan(EXECUTABLE, root=tmp_path), root=tmp_path)
    (tmp_path / "systemd-sysusers").symlink_to(shutil.which("true", path="/bin:/usr/bin"))
    (tmp_path / "systemd-tmpfiles").symlink_to(shutil.which("true", path="/bin:/usr/bin"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(EdgecountError, match="systemctl daemon-reload failed: no bus"):
        carry_out(plan(EXECUTABLE, root=tmp_path), root=tmp_path)


def test_the_command_itself_is_found(tmp_path):
    script = tmp_path / "edgecount"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert own_executable(str(script)) == script
    with pytest.raises(ConfigError, match="--executable"):
        own_executable("/usr/lib/python3/edgecount/__main__.py")


def test_a_dry_run_shows_everything_and_does_nothing():
    done = CliRunner().invoke(command, ["--dry-run", "--executable", str(EXECUTABLE)])
    assert done.exit_code == 0
    assert "# write /etc/systemd/system/edgecount.service" in done.output
    assert "WatchdogSec=30" in done.output
    assert "# run systemctl daemon-reload" in done.output


def installed(tmp_path, **options):
    """The units as installed, but for a command that exists here."""
    program = tmp_path / "edgecount"
    shutil.copy(shutil.which("true"), program)
    to_do = plan(EXECUTABLE, root=tmp_path, **options)
    for path, content in to_do.files.items():
        target = tmp_path / path.name
        text = content.replace(str(EXECUTABLE), str(program))
        for tool in ("/usr/sbin/nvpmodel", "/usr/bin/jetson_clocks"):
            text = text.replace(f"={tool}", f"={program}").replace(f"=-{tool}", f"=-{program}")
        target.write_text(text)
    return tmp_path


@needs_analyze
@pytest.mark.parametrize(
    ("unit", "options"),
    [
        ("edgecount.service", {}),
        ("edgecount@.service", {"instances": ["door"]}),
        ("edgecount-maxperf.service", {"maxperf": True}),
    ],
)
def test_systemd_finds_nothing_wrong(tmp_path, unit, options):
    done = subprocess.run(
        ["systemd-analyze", "verify", str(installed(tmp_path, **options) / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "edgecount" in line]
    assert (done.returncode, complaints) == (0, [])


@needs_analyze
@pytest.mark.parametrize("unit", ["edgecount.service", "edgecount@.service"])
def test_exposure_is_at_most_four(tmp_path, unit):
    options = {"instances": ["door"]} if "@" in unit else {}
    path = installed(tmp_path, **options) / unit
    # The threshold is in tenths.
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_the_two_units_differ_only_in_the_instance():
    one = plan(EXECUTABLE).files[UNITS / "edgecount.service"]
    many = plan(EXECUTABLE, ["door"]).files[UNITS / "edgecount@.service"]
    as_one = (
        many.replace(" (%i)", "")
        .replace("%i.yaml", "edgecount.yaml")
        .replace("%i.environment", "environment")
        .replace("edgecount@NAME.service", "edgecount.service")
        .replace("/%i", "")
    )
    assert as_one.splitlines()[1:] == one.splitlines()[1:]


@pytest.mark.parametrize("setting", ["PrivateDevices=", "DevicePolicy=", "ProtectClock="])
def test_nothing_shuts_out_gpu_and_cameras(setting):
    unit = plan(EXECUTABLE).files[UNITS / "edgecount.service"]
    assert not any(line.startswith(setting) for line in unit.splitlines())
    assert "SupplementaryGroups=video render" in unit
