"""Redact whole structures: a log line, the body of an HTTP answer."""

from typing import Any, Callable, Mapping

Redact = Callable[[str], str]


def redact_deep(value: Any, redact: Redact) -> Any:
    """``value`` with every text in it redacted, keys of mappings included.

    Mappings become dicts, other collections lists; numbers, booleans and None stay. Any
    other object becomes its redacted ``repr``: what JSON would print of it anyway.
    """
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {redact(str(k)): redact_deep(v, redact) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_deep(v, redact) for v in value]
    return redact(repr(value))
