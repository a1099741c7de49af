"""The engine cache: what is built, and whether this machine can still load it."""

import os
from pathlib import Path
from typing import Callable, Iterator

from edgecount.errors import EngineError
from edgecount.infer.tensorrt import device, versions
from edgecount.infer.tensorrt.cache import EngineCache, Slot, cache_folder
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey, difference, loadable
from edgecount.infer.tensorrt.versions import Version
from edgecount.toolchain.doctor.finding import Finding


def examine(
    folder: Path,
    version: Callable[[str], Version] = lambda product: versions.find(product).version,
    facts: Callable[[], DeviceFacts] = device.look,
) -> Iterator[Finding]:
    """Look at every engine that is in use.

    Args:
        folder: The cache's folder.
        version: Version of a TensorRT product that is installed; raises EngineError.
        facts: What this machine's engines are bound to.
    """
    if not _writable(folder):
        remedy = f"give it to the service's user: chown -R edgecount {folder}"
        yield Finding("engine cache", "warn", f"{folder} cannot be written", remedy)
    slots = EngineCache(folder).slots()
    if not slots:
        yield Finding("engine cache", "ok", f"empty: no TensorRT engine is built in {folder}")
        return
    here = facts()
    for slot in slots:
        yield _judge(slot, version, here)


def examine_default() -> Iterator[Finding]:
    """As :func:`examine`, of the cache that this user's service would use."""
    return examine(cache_folder(os.environ))


def _judge(slot: Slot, version: Callable[[str], Version], here: DeviceFacts) -> Finding:
    check, name = "engine", f"{slot.model} {slot.name}"
    index = slot.index()
    entry = slot.entry(index.current)
    rebuild = f"edgecount build {slot.model}"
    if entry is None:
        return Finding(check, "warn", f"{name}: its files are damaged", rebuild)
    key = entry.manifest.key
    held = ", held by a rollback" if index.held else ""
    shown = f"{name}: {key.version.label}, built {entry.manifest.built_at[:10]}{held}"
    try:
        now = _now(key, version(key.runtime), here)
    except EngineError as error:
        return Finding(check, "warn", f"{shown}; {error}", rebuild)
    if not loadable(key, now):
        return Finding(check, "warn", f"{name}: {difference(key, now)}", rebuild)
    changed = difference(key, now)
    if changed and not index.held:
        return Finding(check, "ok", f"{shown}; {changed}: the service builds it anew")
    return Finding(check, "ok", shown)


def _now(key: BuildKey, version: Version, here: DeviceFacts) -> BuildKey:
    """The key that the same engine would have if it were built now."""
    return key.model_copy(
        update={
            "runtime_version": version.text,
            "cuda": here.cuda,
            "driver": here.driver,
            "device": here.name,
            "sm": here.sm,
        }
    )


def _writable(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(there, os.W_OK)
