"""The ``edgecount`` command."""

import importlib
import pkgutil
import sys
from typing import List, Optional

import click

from edgecount.errors import EdgecountError


class FileGroup(click.Group):
    """A group whose commands are the files of a package; each holds ``command``.

    A file is imported only when its command runs or is described, so that
    ``edgecount run`` does not pay for the tool-chain.
    """

    def __init__(self, package: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self._package = package

    def list_commands(self, ctx: click.Context) -> List[str]:  # noqa: ARG002
        path = importlib.import_module(self._package).__path__
        found = (m.name for m in pkgutil.iter_modules(path) if m.name != "main")
        return sorted(n.replace("_", "-") for n in found if not n.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


def _version() -> str:
    from edgecount import __version__

    return __version__


@click.group(cls=FileGroup, package="edgecount.cli", context_settings={"max_content_width": 100})
@click.version_option(_version(), prog_name="edgecount")
def cli() -> None:
    """Count people by their heads, next to the camera."""
    from edgecount.observe import logs

    # To stderr, whatever the command: stdout holds what was asked for, JSON often.
    logs.configure("warning")


def main() -> None:
    """Run the command line; known errors end in one line on stderr and their exit code."""
    try:
        cli()
    except EdgecountError as error:
        click.echo(f"edgecount: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
