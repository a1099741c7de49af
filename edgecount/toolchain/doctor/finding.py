"""What a check says."""

from dataclasses import dataclass
from typing import Dict, Sequence

from typing_extensions import Literal

State = Literal["ok", "warn", "fail", "skip"]
_SEVERITY = ("skip", "ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at, e.g. ``camera door``.
        state: ``warn`` runs worse than it could, ``fail`` does not run, ``skip`` was not
            looked at.
        detail: What was found.
        remedy: What to do about it; empty where nothing need be done.
    """

    check: str
    state: State
    detail: str
    remedy: str = ""

    def payload(self) -> Dict[str, str]:
        """As a JSON object."""
        return {
            "check": self.check,
            "state": self.state,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def worst(findings: Sequence[Finding]) -> State:
    """The gravest state of all; ``ok`` where there is none."""
    return max((f.state for f in findings), key=_SEVERITY.index, default="ok")
