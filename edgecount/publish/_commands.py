"""Commands that come over MQTT: checked, allowed or not, done once, answered."""

from collections import OrderedDict
from typing import Callable, Dict, Mapping, Optional, Sequence, Type, Union

import structlog
from pydantic import Field, ValidationError
from typing_extensions import Annotated, Literal

from edgecount.config import Name, Strict, mistakes
from edgecount.errors import EdgecountError

_MOST_BYTES = 4096
_REMEMBERED = 256
_PER_SECOND = 10.0
_BURST = 20.0

_log = structlog.get_logger(__name__)

RequestId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")]


class Reset(Strict):
    """Set all totals and places to zero, now."""

    v: Literal[1] = Field(1, description="Version of this format.")
    id: RequestId = Field(description="Chosen by the sender; the answer carries it.")


class SetOccupancy(Strict):
    """Say how many people are in a place, because somebody counted them."""

    v: Literal[1] = Field(1, description="Version of this format.")
    id: RequestId = Field(description="Chosen by the sender; the answer carries it.")
    place: Name = Field(description="A place of the configuration.")
    occupancy: Annotated[int, Field(ge=0, le=1_000_000)] = Field(description="People in it now.")


class Reload(Strict):
    """Read the configuration file again."""

    v: Literal[1] = Field(1, description="Version of this format.")
    id: RequestId = Field(description="Chosen by the sender; the answer carries it.")


Command = Union[Reset, SetOccupancy, Reload]
# Does what the command says, in milliseconds, or raises an EdgecountError that says why not.
Handler = Callable[[Command], None]

COMMANDS: Mapping[str, Type[Command]] = {
    "reset": Reset,
    "set_occupancy": SetOccupancy,
    "reload": Reload,
}


class Commands:
    """Decides what happens with a message on a command topic. Used from one thread.

    Args:
        allowed: Names that are obeyed.
        handlers: What does them.
        clock: Monotonic seconds.
        wall_clock: UTC seconds since 1970, for the answers.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        handlers: Mapping[str, Handler],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._allowed = frozenset(allowed)
        self._handlers = handlers
        self._clock = clock
        self._wall_clock = wall_clock
        self._answers: OrderedDict[str, Dict[str, object]] = OrderedDict()
        self._tokens = _BURST
        self._filled_at = clock()
        self.ignored = 0

    def handle(self, name: str, payload: bytes, *, retained: bool) -> Optional[Dict[str, object]]:
        """Do what a message asks for, if it may.

        A retained command is ignored: the broker would repeat it at every connect. A
        request id that was seen before gets its first answer again, and nothing is done:
        QoS 1 may deliver twice.

        Returns:
            The answer, or None where the message deserves none.
        """
        if name not in COMMANDS or retained or not self._within_rate():
            self.ignored += 1
            return None
        if name not in self._allowed or name not in self._handlers:
            return self._answer(None, f"{name} is not allowed: add it to mqtt.commands")
        command = _parse(COMMANDS[name], payload)
        if isinstance(command, str):
            return self._answer(None, command)
        key = f"{name} {command.id}"
        if key not in self._answers:
            self._answers[key] = self._do(name, command)
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return self._answers[key]

    def _do(self, name: str, command: Command) -> Dict[str, object]:
        try:
            self._handlers[name](command)
        except EdgecountError as error:
            _log.warning("command_failed", command=name, request=command.id, error=str(error))
            return self._answer(command.id, str(error))
        _log.info("command_done", command=name, request=command.id)
        return self._answer(command.id, None)

    def _answer(self, request: Optional[str], error: Optional[str]) -> Dict[str, object]:
        answer: Dict[str, object] = {
            "v": 1,
            "id": request,
            "ts": round(self._wall_clock(), 3),
            "ok": error is None,
        }
        if error is not None:
            answer["error"] = error
        return answer

    def _within_rate(self) -> bool:
        now = self._clock()
        self._tokens = min(_BURST, self._tokens + (now - self._filled_at) * _PER_SECOND)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _parse(model: Type[Command], payload: bytes) -> Union[Command, str]:
    if len(payload) > _MOST_BYTES:
        return f"the payload is longer than {_MOST_BYTES} bytes"
    try:
        return model.model_validate_json(payload, strict=True)
    except ValidationError as error:
        return mistakes(error)[0]
