import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import edgecount
from edgecount.cli import main as cli_main
from edgecount.errors import ConfigError, EdgecountError, EngineError

COMMAND = """
import click
@click.command()
def command():
    '''Does {name}.'''
    click.echo('{name} ran')
"""


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Group:
    folder = tmp_path / "commands"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name in ("two_words", "one", "_helper", "main"):
        (folder / f"{name}.py").write_text(COMMAND.format(name=name), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield cli_main.FileGroup("commands", name="test")
    for module in [m for m in sys.modules if m.split(".")[0] == "commands"]:
        del sys.modules[module]


def test_commands_are_files(group: click.Group) -> None:
    assert group.list_commands(click.Context(group)) == ["one", "two-words"]


def test_only_the_command_that_runs_is_imported(group: click.Group) -> None:
    result = CliRunner().invoke(group, ["two-words"])
    assert result.output == "two_words ran\n"
    assert "commands.one" not in sys.modules


@pytest.mark.parametrize("name", ["three", "two_words", "helper", "main"])
def test_an_unknown_command_is_bad_usage(group: click.Group, name: str) -> None:
    result = CliRunner().invoke(group, [name])
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_version() -> None:
    result = CliRunner().invoke(cli_main.cli, ["--version"])
    assert result.exit_code == 0
    assert edgecount.__version__ in result.output


def test_help_describes_every_command() -> None:
    result = CliRunner().invoke(cli_main.cli, ["--help"])
    assert result.exit_code == 0
    for name in cli_main.cli.list_commands(click.Context(cli_main.cli)):
        assert name in result.output


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("c.yaml:3: wrong"), 2), (EngineError("device lost"), 1)]
)
def test_known_errors_are_one_line_and_an_exit_code(
    error: EdgecountError, code: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli_main, "cli", fail)
    with pytest.raises(SystemExit) as stopped:
        cli_main.main()
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"edgecount: {error}\n"


def test_unknown_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli_main, "cli", fail)
    with pytest.raises(ZeroDivisionError):
        cli_main.main()


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_the_module_runs(arguments, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecount", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=Path(edgecount.__file__).parent.parent,
    )
    assert done.returncode == code
