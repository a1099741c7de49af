import json
import random
from typing import Callable, List, Tuple

import pytest

from edgecount.errors import ConfigError
from edgecount.publish._commands import COMMANDS, Commands


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0  # slow enough for the rate limit
        return self.now


def commands(*allowed: str) -> Tuple[Commands, List[object]]:
    done: List[object] = []
    return Commands(allowed, dict.fromkeys(COMMANDS, done.append), Clock(), lambda: 5.0), done


def ask(target: Commands, name: str, payload: object, *, retained: bool = False) -> dict:
    return target.handle(name, json.dumps(payload).encode(), retained=retained) or {}


def test_a_command_is_done_and_answered() -> None:
    target, done = commands("set_occupancy")
    answer = ask(target, "set_occupancy", {"id": "r1", "place": "hall", "occupancy": 12})
    assert answer == {"v": 1, "id": "r1", "ts": 5.0, "ok": True}
    (command,) = done
    assert (command.place, command.occupancy) == ("hall", 12)


def test_nothing_is_allowed_unless_named() -> None:
    target, done = commands()
    answer = ask(target, "reset", {"id": "r1"})
    assert not answer["ok"]
    assert "mqtt.commands" in answer["error"]
    assert done == []


def test_a_repeated_request_is_answered_and_not_repeated() -> None:
    target, done = commands("reset")
    first = ask(target, "reset", {"id": "r1"})
    assert ask(target, "reset", {"id": "r1"}) == first
    assert len(done) == 1
    ask(target, "reset", {"id": "r2"})
    assert len(done) == 2


def test_a_retained_command_is_ignored() -> None:
    target, done = commands("reset")
    assert ask(target, "reset", {"id": "r1"}, retained=True) == {}
    assert done == []


def test_a_failure_is_told() -> None:
    def fail(_command: object) -> None:
        raise ConfigError("there is no place 'attic'")

    target = Commands(["reset"], {"reset": fail}, Clock(), lambda: 5.0)
    assert ask(target, "reset", {"id": "r1"})["error"] == "there is no place 'attic'"


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"null", b"[]", b"42", b'"reset"', b"{", b"{}", b"\xff\xfe", b'{"id": 5}',
        b'{"id": ""}', b'{"id": "a b"}', b'{"id": "x", "v": 2}', b'{"id": "x", "extra": 1}',
        b'{"id": "' + b"x" * 65 + b'"}', b"[" * 4000, b'{"id":"x"' + b" " * 5000 + b"}",
    ],
)  # fmt: skip
def test_malformed_requests_are_refused(payload: bytes) -> None:
    target, done = commands("reset")
    answer = target.handle("reset", payload, retained=False)
    assert answer is not None
    assert answer["ok"] is False
    assert done == []


@pytest.mark.parametrize("occupancy", [-1, 1.5, "12", True, None, 10**30, [1]])
def test_an_occupancy_is_a_whole_number_that_is_not_negative(occupancy: object) -> None:
    target, done = commands("set_occupancy")
    answer = ask(target, "set_occupancy", {"id": "x", "place": "hall", "occupancy": occupancy})
    assert answer["ok"] is False
    assert done == []


def test_a_flood_is_ignored() -> None:
    done: List[object] = []
    target = Commands(["reset"], {"reset": done.append}, lambda: 1.0, lambda: 5.0)
    for n in range(1000):
        ask(target, "reset", {"id": f"r{n}"})
    assert len(done) <= 20
    assert target.ignored == 1000 - len(done)


def test_100000_hostile_messages_change_nothing() -> None:
    target, done = commands("reset", "set_occupancy", "reload")
    rng = random.Random(7)
    makers = [_bytes, _json, _mutated]
    for _ in range(100_000):
        name = rng.choice(["reset", "set_occupancy", "reload", "", "exec", "../x", "reset/x"])
        payload = rng.choice(makers)(rng)
        if _is_valid(name, payload):
            continue
        target.handle(name, payload, retained=rng.random() < 0.1)
    assert done == []


def _bytes(rng: random.Random) -> bytes:
    return bytes(rng.getrandbits(8) for _ in range(rng.randrange(40)))


def _json(rng: random.Random) -> bytes:
    keys = ["id", "v", "place", "occupancy", "__class__", "", "id\u0000"]
    values: List[Callable[[], object]] = [
        lambda: None, lambda: rng.choice([True, False]), lambda: rng.randint(-(10**20), 10**20),
        lambda: rng.random() * 1e308, lambda: "x" * rng.randrange(100), lambda: [[[]]],
        lambda: {"id": {}}, lambda: "\ud800", lambda: float("nan"),
    ]  # fmt: skip
    chosen = {k: rng.choice(values)() for k in rng.sample(keys, rng.randrange(len(keys)))}
    return json.dumps(chosen).encode("utf-8", "surrogatepass")


def _mutated(rng: random.Random) -> bytes:
    good = bytearray(b'{"v":1,"id":"r1","place":"hall","occupancy":3}')
    for _ in range(rng.randrange(1, 4)):
        good[rng.randrange(len(good))] = rng.getrandbits(8)
    return bytes(good)


def _is_valid(name: str, payload: bytes) -> bool:
    """An independent judge: plain json and the documented rules."""
    if name not in COMMANDS:
        return False
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return False
    names = {"id", "v"} | ({"place", "occupancy"} if name == "set_occupancy" else set())
    return set(value) <= names and (name != "set_occupancy" or "occupancy" in value)
