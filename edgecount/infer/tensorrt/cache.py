"""Built engines on disk: published whole or not at all, the last good one kept.

``<folder>/<model>/<slot>/`` holds, for one precision and usual input shape of a model,
``<digest>.engine`` and ``<digest>.json`` of the newest engine and of the one before it, and
``index.json``, which says which is which. Every file appears by rename, the index last; what
the index does not name does not exist. A process that dies at any moment therefore leaves
the last good engine in place, and at worst a file ending in ``.part`` that the next
:meth:`EngineCache.publish` removes.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from pydantic import ValidationError

from edgecount.config import Strict
from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt import manifest as manifests
from edgecount.infer.tensorrt.manifest import BuildKey, Manifest
from edgecount.infer.tensorrt.profile import show

_INDEX = "index.json"
_SCRATCH = ".build"
_ENGINE, _MANIFEST, _PART = ".engine", ".json", ".part"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where edgecount keeps what it can make again.

    ``EDGECOUNT_CACHE``, else systemd's ``CACHE_DIRECTORY``, else ``~/.cache/edgecount``.
    """
    for name in ("EDGECOUNT_CACHE", "CACHE_DIRECTORY"):
        if environ.get(name):
            return Path(environ[name].split(":")[0])
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edgecount"


class Index(Strict):
    """What a slot holds.

    Attributes:
        current: Digest of the engine that serves.
        previous: Digest of the one before it.
        held: Whether a person went back to ``current``: then it also serves where a newer
            model or recipe would have it rebuilt, until an engine is built by hand.
    """

    current: Optional[str] = None
    previous: Optional[str] = None
    held: bool = False


class Verdict(Strict):
    """Which of two engines of a model is faster on this device.

    Attributes:
        milliseconds: Digest of an engine's key → median time of one run.
    """

    milliseconds: Dict[str, float]


class Entry(NamedTuple):
    """An engine in the cache."""

    engine: Path
    manifest: Manifest

    def read(self) -> bytes:
        """The engine's bytes.

        Raises:
            EngineError: They cannot be read, or are not those that were built.
        """
        try:
            data = self.engine.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read {self.engine}: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.engine_sha256:
            raise EngineError(f"{self.engine} is damaged: delete it, and it is built anew")
        return data


class Lookup(NamedTuple):
    """What the cache says to a key.

    Attributes:
        entry: The engine that serves now: the one asked for, or the last good one that this
            machine can load; None where there is neither.
        reason: Why an engine must be built, in one sentence; None where ``entry`` is as
            asked for, or is held.
    """

    entry: Optional[Entry]
    reason: Optional[str]


class Slot:
    """The engines of one model, precision and usual input shape."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """E.g. ``int8-1x3x416x416``."""
        return self.folder.name

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.folder.parent.name

    def index(self) -> Index:
        """What is there; an index that cannot be read names nothing."""
        try:
            return Index.model_validate_json((self.folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return Index()

    def entry(self, digest: Optional[str]) -> Optional[Entry]:
        """A whole engine with its manifest, or None. The engine's bytes are not read."""
        if digest is None:
            return None
        engine = self.folder / f"{digest}{_ENGINE}"
        try:
            manifest = manifests.read(self.folder / f"{digest}{_MANIFEST}")
            whole = engine.stat().st_size == manifest.engine_bytes
        except (OSError, EngineError):
            return None
        return Entry(engine, manifest) if whole and manifest.key.digest == digest else None

    def rollback(self) -> Entry:
        """Make the engine before the current one current, and hold it.

        Raises:
            ConfigError: There is none.
        """
        with self.lock():
            index = self.index()
            before = self.entry(index.previous)
            if before is None:
                raise ConfigError(
                    f"{self.model} {self.name} has no engine before the current one to go back to"
                )
            self.write_index(Index(current=index.previous, previous=index.current, held=True))
            return before

    def write_index(self, index: Index) -> None:
        """Replace the index, in one piece."""
        _write(self.folder / _INDEX, (index.model_dump_json() + "\n").encode())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing here, for the moment of a publication."""
        with _locked(self.folder / ".lock"):
            yield

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Wait until nobody else builds for this slot, so that nothing is built twice.

        Raises:
            EngineError: The folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_locked(self.folder / ".building"))
            except OSError as error:
                raise EngineError(
                    f"cannot write in {self.folder}: {error.strerror or error}; give it to this "
                    "user, or set EDGECOUNT_CACHE to another folder"
                ) from error
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder for a build's own files, removed afterwards; needs :meth:`building`.

        What a killed build left is removed first.
        """
        shared = self.folder / _SCRATCH
        shutil.rmtree(shared, ignore_errors=True)
        _make(shared)
        try:
            yield Path(tempfile.mkdtemp(dir=shared))
        finally:
            shutil.rmtree(shared, ignore_errors=True)


class EngineCache:
    """All engines of this machine.

    Args:
        folder: The cache's own folder; ``engines``, ``timing`` and ``calibration`` are made in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "engines"
        self._timing = folder / "timing"
        self._calibration = folder / "calibration"

    def slot(self, key: BuildKey) -> Slot:
        """Where engines like this one lie."""
        dla = "-dla" if key.dla else ""
        return Slot(self.folder / key.model / f"{key.precision}-{show(key.profile.opt)}{dla}")

    def slots(self, model: Optional[str] = None) -> List[Slot]:
        """All slots that hold an engine, of one model or of all."""
        found = (Slot(path.parent) for path in sorted(self.folder.glob(f"*/*/{_INDEX}")))
        return [slot for slot in found if model in (None, slot.model)]

    def lookup(self, key: BuildKey) -> Lookup:
        """The engine to serve now, and whether another must be built."""
        slot = self.slot(key)
        index = slot.index()
        exact = slot.entry(key.digest)
        current = slot.entry(index.current)
        if current and index.held and manifests.loadable(current.manifest.key, key):
            return Lookup(current, None)
        if exact is not None and key.digest in (index.current, index.previous):
            return Lookup(exact, None)
        kept = [e for e in (current, slot.entry(index.previous)) if e is not None]
        if not kept:
            return Lookup(None, f"{key.model} {slot.name} has no engine yet: building")
        usable = (e for e in kept if manifests.loadable(e.manifest.key, key))
        return Lookup(next(usable, None), _sentence(kept[0].manifest, key))

    def publish(self, manifest: Manifest, engine: bytes) -> Entry:
        """Store an engine and make it current; the one before stays for a rollback.

        Raises:
            EngineError: The disk is full, or the folder cannot be written.
        """
        slot, digest = self.slot(manifest.key), manifest.key.digest
        try:
            with slot.lock():
                _write(slot.folder / f"{digest}{_ENGINE}", engine)
                text = manifest.model_dump_json(indent=1) + "\n"
                _write(slot.folder / f"{digest}{_MANIFEST}", text.encode())
                index = slot.index()
                before = index.previous if index.current == digest else index.current
                slot.write_index(Index(current=digest, previous=before))
                _sweep(slot.folder, {digest, before})
        except OSError as error:
            raise EngineError(
                f"cannot store the engine in {slot.folder}: {error.strerror or error}; the last "
                "one stays in use"
            ) from error
        return Entry(slot.folder / f"{digest}{_ENGINE}", manifest)

    def use(self, entry: Entry) -> Entry:
        """Make an engine that is there the current one."""
        slot, digest = self.slot(entry.manifest.key), entry.manifest.key.digest
        with slot.lock():
            index = slot.index()
            if index.current != digest:
                slot.write_index(Index(current=digest, previous=index.current))
        return entry

    def release(self, key: BuildKey) -> None:
        """Let a held engine go: the next lookup wants what the key says again."""
        slot = self.slot(key)
        index = slot.index()
        if index.held:
            with slot.lock():
                slot.write_index(index.model_copy(update={"held": False}))

    def store_verdict(self, milliseconds: Mapping[BuildKey, float]) -> None:
        """Keep how fast two engines of one model and input shape are. Raises EngineError."""
        key = next(iter(milliseconds))
        verdict = Verdict(milliseconds={k.digest: ms for k, ms in milliseconds.items()})
        path = self._verdict(key)
        try:
            _make(path.parent)
            _write(path, (verdict.model_dump_json() + "\n").encode())
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error.strerror or error}") from error

    def faster(self, keys: Sequence[BuildKey]) -> Optional[BuildKey]:
        """The fastest of engines that were measured together; None where they were not."""
        try:
            text = self._verdict(keys[0]).read_text(encoding="utf-8")
            times = Verdict.model_validate_json(text).milliseconds
        except (OSError, UnicodeDecodeError, ValidationError):
            return None
        if {key.digest for key in keys} != set(times):
            return None
        return min(keys, key=lambda key: times[key.digest])

    def _verdict(self, key: BuildKey) -> Path:
        dla = "-dla" if key.dla else ""
        return self.folder / key.model / f"auto-{show(key.profile.opt)}{dla}.json"

    def timing_cache(self, key: BuildKey) -> Path:
        """Where TensorRT's timings of this device lie."""
        parts = (key.runtime, key.runtime_version, f"sm{key.sm}", key.device)
        name = "-".join("".join(c if c.isalnum() or c == "." else "_" for c in p) for p in parts)
        return self._timing / f"{name}.cache"

    def calibration_cache(self, key: BuildKey) -> Path:
        """Where the scales lie that TensorRT itself found for a model and pictures."""
        name = f"{key.runtime_version}-{key.model_sha256[:16]}-{key.calibration_sha256[:16]}.cache"
        return self._calibration / name


def keep_file(path: Path, data: bytes) -> None:
    """Keep timings or scales; two builds at once each store theirs whole, the last one stays."""
    with contextlib.suppress(OSError):  # it only saves time
        _make(path.parent)
        _write(path, data)


def duration(seconds: float) -> str:
    """About how long, as a person says it: ``8 s``, ``4 min``."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _sentence(built: Manifest, key: BuildKey) -> str:
    told = manifests.difference(built.key, key)
    return f"{told}: rebuilding, about {duration(built.build_seconds)}"


def _sweep(folder: Path, keep: Set[Optional[str]]) -> None:
    """Remove engines that nobody can go back to, and what dead builds left."""
    for path in folder.iterdir():
        old = path.suffix in (_ENGINE, _MANIFEST) and path.name != _INDEX and path.stem not in keep
        if old or path.suffix == _PART:
            path.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when the process ends, however it ends."""
    _make(path.parent)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one piece that also survives a power cut."""
    part = path.with_name(f"{path.name}{_PART}")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
