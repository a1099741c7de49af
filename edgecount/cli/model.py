"""``edgecount model``: the engines on this device, and the way back to the last good one."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import click

from edgecount.cli._options import json_option

if TYPE_CHECKING:
    from edgecount.infer.tensorrt.cache import Slot


@click.group()
def command() -> None:
    """List built engines, or go back to the one before."""


@command.command("list")
@click.argument("model", required=False)
@json_option()
def list_(model: Optional[str], as_json: bool) -> None:
    """List the engines of all models, or of MODEL."""
    from edgecount.infer.tensorrt.cache import EngineCache, cache_folder

    cache = EngineCache(cache_folder(os.environ))
    rows = [row for slot in cache.slots(model) for row in _rows(slot)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no engine is built in {cache.folder}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "slot", "", "built", "with", "for", "size", "took", box=None)
    for row in rows:
        size, took = f"{row['bytes'] / 2**20:.1f} MiB", f"{row['build_seconds']:.1f} s"
        state = row["state"] + (", held" if row["held"] else "")
        table.add_row(
            row["model"], row["slot"], state, row["built_at"], row["runtime"], row["device"],
            size, took,
        )  # fmt: skip
    # A pipe has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@command.command()
@click.argument("model")
@click.option("--slot", help="Which, where several have one before, e.g. int8-1x3x416x416.")
def rollback(model: str, slot: Optional[str]) -> None:
    """Go back to the engine of MODEL that was in use before the current one.

    It stays in use, also after a restart of the service, until an engine is built by hand or
    rollback is called again.
    """
    from edgecount.errors import ConfigError
    from edgecount.infer.tensorrt.cache import EngineCache, cache_folder

    cache = EngineCache(cache_folder(os.environ))
    slots = cache.slots(model)
    if not slots:
        raise ConfigError(f"no engine of {model!r} is built in {cache.folder}")
    chosen = _named(slots, slot) if slot else _only_one_with_a_previous(slots)
    key = chosen.rollback().manifest.key
    click.echo(
        f"{model} {chosen.name} is now the engine built with {key.version.label} from the ONNX "
        f"file {key.model_sha256[:12]}; restart the service to load it"
    )


def _named(slots: "Sequence[Slot]", name: str) -> "Slot":
    from edgecount.errors import ConfigError

    for slot in slots:
        if slot.name == name:
            return slot
    raise ConfigError(
        f"{slots[0].model} has no slot {name!r}: there is {', '.join(s.name for s in slots)}"
    )


def _only_one_with_a_previous(slots: "Sequence[Slot]") -> "Slot":
    from edgecount.errors import ConfigError

    model = slots[0].model
    able = [slot for slot in slots if slot.entry(slot.index().previous) is not None]
    if not able:
        raise ConfigError(f"no engine of {model!r} has one before it to go back to")
    if len(able) > 1:
        names = ", ".join(slot.name for slot in able)
        raise ConfigError(f"name one of {model}'s engines with --slot: {names}")
    return able[0]


def _rows(slot: "Slot") -> List[Dict[str, Any]]:
    index = slot.index()
    rows = []
    for state, digest in (("current", index.current), ("previous", index.previous)):
        entry = slot.entry(digest)
        if entry is None:
            continue
        manifest = entry.manifest
        rows.append(
            {
                "model": slot.model,
                "slot": slot.name,
                "state": state,
                "held": index.held and state == "current",
                "built_at": manifest.built_at,
                "runtime": manifest.key.version.label,
                "device": f"{manifest.key.device} (SM {manifest.key.sm})",
                "bytes": manifest.engine_bytes,
                "build_seconds": manifest.build_seconds,
                "engine": str(entry.engine),
            }
        )
    return rows
