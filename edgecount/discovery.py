"""Find implementations by file name.

A head, tracker, source or sink is one file in its package that holds a frozen
pydantic model ``Options`` and a function ``create(options, …)``. The name in the
configuration is the name of the file; it is imported only when it is chosen.
"""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Iterable, List

from edgecount.errors import ConfigError

_NOT_IMPLEMENTATIONS = ("base",)


def names(package: str) -> List[str]:
    """Names of all implementations in ``package`` (a dotted name), sorted."""
    path = importlib.import_module(package).__path__
    found = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg)
    return sorted(n for n in found if n not in _NOT_IMPLEMENTATIONS and not n.startswith("_"))


def load(package: str, name: str, what: str) -> ModuleType:
    """Import the implementation called ``name``.

    Args:
        package: Dotted name of the package to look in.
        name: File name without ``.py``.
        what: What is looked for, in a user's words, for the message.

    Raises:
        ConfigError: There is no such implementation; the message names the nearest one.
    """
    known = names(package)
    if name not in known:
        raise ConfigError(f"{what} {name!r} is not known{nearest(name, known)}")
    return importlib.import_module(f"{package}.{name}")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: what the user probably meant, and all choices."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f": did you mean {close[0]!r}?" if close else ""
    return f"{hint} (choices: {', '.join(choices)})" if choices else hint
