"""Keep passwords out of everything that a person or a machine reads."""

import re
from typing import Iterable, List
from urllib.parse import unquote

MASK = "***"
# The password ends at the last @ before the path, since users and passwords may hold an @;
# where there is none, at the last @ of all: somebody wrote a slash into the password.
_USERINFO = re.compile(r"(://[^/\s:]*):([^/\s]*|\S*)@")
# A URL that is a whole value may even hold blanks.
_WHOLE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/:]*:(.*)@", re.DOTALL)
_QUERY = re.compile(
    r"""((?:password|passwd|pass|pwd|user-pw|token|secret|key)\s*=\s*)"""
    r"""("[^"]*"|'[^']*'|[^&\s"']+)""",
    re.IGNORECASE,
)
_SHORTEST = 3


def mask_url(text: str) -> str:
    """``text`` with the password of every URL in it replaced by ``***``."""
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1:{MASK}@", text))


def url_passwords(text: str) -> List[str]:
    """The passwords in the URLs of ``text``, as written and percent-decoded."""
    found = [m.group(2) for m in _USERINFO.finditer(text)]
    found += [m.group(2).strip("\"'") for m in _QUERY.finditer(text)]
    whole = _WHOLE_URL.match(text)
    found += [whole.group(1)] if whole else []
    return found + [unquote(p) for p in found]


class Redactor:
    """Replaces known secrets, and the passwords of URLs, in any text.

    Secrets shorter than three characters are not replaced by value: they would tear
    ordinary words apart; in URLs they are still masked.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        masked = mask_url(text)
        return self._known.sub(MASK, masked) if self._known else masked
