"""Every payload against the schema that is shipped, and against unknown members."""

import json
import re
from typing import Any, Dict

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.count._ulid import IdFactory
from edgecount.publish import _payloads, schema
from edgecount.publish._commands import COMMANDS, Commands
from edgecount.publish.base import PlaceState
from edgecount.records import Aggregate, CountEvent, Figures, LineTotals, Snapshot, ZoneState

names = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,10}", re.ASCII), fullmatch=True)
counts = st.integers(0, 10**9)
times = st.floats(0, 4e9)
figures = st.builds(Figures, counts, counts, counts, st.floats(0, 1e6))


def strict(node: Any) -> Any:
    """Consumers must accept members that they do not know; tests must not."""
    if isinstance(node, list):
        return [strict(n) for n in node]
    if not isinstance(node, dict):
        return node
    node = {k: strict(v) for k, v in node.items()}
    if "properties" in node and node.get("type") == "object":
        node.setdefault("additionalProperties", False)
    return node


def check(name: str, payload: Dict[str, object]) -> None:
    parsed = json.loads(_payloads.encode(payload))
    jsonschema.validate(parsed, strict(schema.payload(name)), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", ["state", "event", "place", "aggregate", "response"])
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.payload(name))


@given(
    st.builds(
        Snapshot,
        camera=names,
        ts=times,
        seq=counts,
        visible=counts,
        lines=st.dictionaries(names, st.builds(LineTotals, counts, counts), max_size=3),
        zones=st.dictionaries(
            names, st.builds(ZoneState, counts, counts, counts, st.floats(0, 1e6)), max_size=3
        ),
        fps=st.floats(0, 1000),
        degraded=st.lists(st.sampled_from(["stale", "covered"])).map(tuple),
        since=times,
    )
)
def test_states(snapshot: Snapshot) -> None:
    check("state", snapshot.payload())


@given(st.builds(PlaceState, names, times, counts, counts, counts, counts, counts))
def test_places(state: PlaceState) -> None:
    check("place", _payloads.place(state))


@given(
    st.sampled_from([("line", "in"), ("line", "out"), ("zone", "entered"), ("zone", "left")]),
    names, times, st.booleans(),
)  # fmt: skip
def test_events(kind: Any, name: str, ts: float, recovered: bool) -> None:
    id_ = IdFactory().make(ts)
    event = CountEvent(kind[0], "door", name, kind[1], 3, 4, ts, dwell_s=2.5, id=id_, seq=1)
    payload = _payloads.event(event, recovered=recovered)
    check("event", payload)
    assert payload["recovered"] is recovered
    assert ("dwell_s" in payload) == (kind[1] == "left")


@given(
    st.dictionaries(st.tuples(names, names), figures, max_size=3),
    st.dictionaries(st.tuples(names, names), figures, max_size=3),
    st.dictionaries(names, figures, max_size=3),
)
def test_aggregates(lines: Any, zones: Any, places: Any) -> None:
    check("aggregate", _payloads.aggregate(Aggregate("hour", 3600, 7200, lines, zones, places)))


@pytest.mark.parametrize("payload", [b'{"id":"r1"}', b"nonsense"])
def test_responses(payload: bytes) -> None:
    commands = Commands(["reset"], {"reset": lambda _c: None}, lambda: 1.0, lambda: 2.0)
    answer = commands.handle("reset", payload, retained=False)
    assert answer is not None
    check("response", answer)


def test_an_event_with_a_wrong_direction_is_not_valid() -> None:
    event = CountEvent("line", "door", "a", "left", 1, 1, 1.0, id=IdFactory().make(1.0), seq=1)
    with pytest.raises(jsonschema.ValidationError):
        check("event", _payloads.event(event, recovered=False))


def test_every_topic_has_a_schema() -> None:
    topics = schema.topics()
    assert {f"{{prefix}}/command/{name}" for name in COMMANDS} <= set(topics)
    assert "{prefix}/{camera}/status" in topics
    for found in topics.values():
        jsonschema.Draft202012Validator.check_schema(found)
