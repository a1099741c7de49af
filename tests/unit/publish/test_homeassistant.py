import json
from typing import Any, Dict, List

from edgecount.config import Settings
from edgecount.publish.homeassistant import Announcer, discovery

PREFIX = "edgecount/lobby"


def settings(lines: List[str], zones: List[str] = (), places: Dict[str, Any] = {}) -> Settings:  # noqa: B006
    return Settings.model_validate(
        {
            "device": "lobby",
            "cameras": [
                {
                    "name": "front-door",
                    "source": "usb:0",
                    "lines": [{"name": n, "from": [0, 0.5], "to": [1, 0.5]} for n in lines],
                    "zones": [{"name": n, "polygon": [[0, 0], [1, 0], [1, 1]]} for n in zones],
                }
            ],
            "places": places,
            "mqtt": {"host": "localhost", "homeassistant": True},
        }
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_entities_of_cameras_and_places() -> None:
    found = discovery(
        settings(["main-line"], ["hall"], {"shop": {"in": ["front-door.main-line"]}}), PREFIX
    )
    assert found["device"]["identifiers"] == ["edgecount_lobby"]
    assert found["availability"] == [{"topic": "edgecount/lobby/status"}]
    by_name = {c["name"]: c for c in found["components"].values()}
    assert set(by_name) == {
        "front-door visible", "front-door fps", "front-door problem", "front-door hall",
        "front-door main-line in", "front-door main-line out",
        "shop occupancy", "shop in", "shop out",
    }  # fmt: skip
    line = by_name["front-door main-line in"]
    assert line["state_class"] == "total_increasing"
    assert line["state_topic"] == "edgecount/lobby/front-door/state"
    # "in" is a keyword of Jinja, and names may hold a dash.
    assert line["value_template"] == "{{ value_json.lines['main-line']['in'] }}"
    assert by_name["shop in"]["value_template"] == "{{ value_json['in'] }}"
    assert by_name["front-door problem"]["device_class"] == "problem"
    assert len({c["unique_id"] for c in by_name.values()}) == len(by_name)
    assert all(c["platform"] in ("sensor", "binary_sensor") for c in by_name.values())


def test_the_first_announcement_waits_for_the_last_one() -> None:
    clock = Clock()
    announcer = Announcer(settings(["a"]), PREFIX, clock)
    topics = announcer.begin()
    assert topics == ["homeassistant/device/lobby/config", "homeassistant/status"]
    assert announcer.due() == []
    clock.now = 1.1  # there was none
    ((topic, payload),) = announcer.due()
    assert topic == topics[0]
    assert json.loads(payload) == discovery(settings(["a"]), PREFIX)
    assert announcer.due() == []


def test_entities_that_left_the_configuration_are_removed() -> None:
    clock = Clock()
    before = discovery(settings(["a", "b"]), PREFIX)
    announcer = Announcer(settings(["a"]), PREFIX, clock)
    announcer.begin()
    announcer.received(announcer.topic, json.dumps(before).encode(), True)
    ((_, removal),) = announcer.due()
    components = json.loads(removal)["components"]
    gone = [key for key, value in components.items() if value == {"platform": "sensor"}]
    assert gone == [k for k in before["components"] if k.endswith(("_b_in", "_b_out"))]
    clock.now += 2.0
    ((_, final),) = announcer.due()
    assert json.loads(final) == discovery(settings(["a"]), PREFIX)


def test_what_was_read_back_may_be_anything() -> None:
    for payload in (
        b"",
        b"[]",
        b"\xff",
        b'{"components": 5}',
        b'{"components": {"a": 3}}',
        b"[" * 9999,
    ):
        announcer = Announcer(settings(["a"]), PREFIX, Clock())
        announcer.begin()
        assert announcer.received(announcer.topic, payload, True)
        assert len(announcer.due()) == 1


def test_a_birth_of_home_assistant_asks_for_everything_again() -> None:
    announcer = Announcer(settings(["a"]), PREFIX, Clock())
    announcer.begin()
    assert announcer.received("homeassistant/status", b"offline", False)
    assert not announcer.reborn()
    assert announcer.received("homeassistant/status", b"online", False)
    assert announcer.reborn()
    assert not announcer.reborn()
    assert not announcer.received("edgecount/lobby/command/reset", b"{}", False)
