"""The schema accepts what the settings accept, and names what they name."""

import jsonschema
import pytest
import yaml

from edgecount.config import Settings
from edgecount.toolchain.config_schema import config_schema

GOOD = """
device: lobby
cameras:
  - name: door
    source: usb:0
    capture: {kind: file, loop: true}
    tiles: 2x2
    lines: [{name: entrance, from: [0.1, 0.6], to: [0.9, 0.6]}]
    zones: [{name: hall, polygon: [[0.2, 0.2], [0.8, 0.2], [0.8, 0.9]], max_occupancy: 40}]
places: {shop: {in: [door.entrance]}}
mqtt: {host: broker.local, port: 8883, username: edge, password: x, tls: {ca: /etc/ca.pem}}
ledger: {path: /var/lib/edgecount/ledger.db, commit_ms: 200}
reset: {at: "04:00", timezone: Europe/Berlin}
"""


def validate(document: object) -> None:
    jsonschema.validate(document, config_schema(), jsonschema.Draft202012Validator)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())


def test_a_good_configuration_is_valid() -> None:
    document = yaml.safe_load(GOOD)
    Settings.model_validate(document)
    validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("mqtt", "prot"), 1883),
        (("cameras", 0, "capture", "looop"), True),
        (("cameras", 0, "capture", "kind"), "tape"),
        (("ledger", "commit_ms"), -1),
        (("cameras", 0, "tiles"), "2by2"),
        (("cameras", 0, "tiles"), {"columns": 2}),
        (("cameras", 0, "lines", 0, "to"), [2, 0]),
    ],
)
def test_a_bad_one_is_not(path: tuple, value: object) -> None:
    document = yaml.safe_load(GOOD)
    target = document
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(document)


def test_every_option_is_described() -> None:
    schema = config_schema()
    nodes = [schema, *schema["$defs"].values()]
    for node in nodes:
        for name, field in node.get("properties", {}).items():
            assert field.get("description"), f"{node.get('title')}.{name}"
