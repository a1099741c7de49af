"""Read counts from a broker: every event once, in order, whatever broke in between.

    python examples/subscriber.py --host broker.local --device lobby --file counts.csv

edgecount delivers at least once: after a lost connection, events whose acknowledgement
was lost come again, in the same order and with the same id. This program appends each
event once to a CSV file, also over its own restarts:

- it logs in with a fixed client id and a session that the broker keeps, so that events
  which come while it is away are waiting for it;
- it drops ids that it has seen; the last ones are read back from the file at the start.

Needs paho-mqtt 2 and nothing else.
"""

import argparse
import csv
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

# Far more than can be on its way twice.
REMEMBERED = 100_000
COLUMNS = ["id", "seq", "ts", "camera", "kind", "name", "direction", "recovered"]


class Seen:
    """The last ids, oldest first."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, id_: str) -> bool:
        """Remember an id; False where it was known."""
        if id_ in self._ids:
            return False
        self._ids[id_] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)
        return True


class Recorder:
    """Appends each event once to a CSV file."""

    def __init__(self, path: Path) -> None:
        self._seen = Seen()
        new = not path.exists()
        if not new:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    self._seen.add(row["id"])
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS)
        if new:
            self._writer.writeheader()
            self._file.flush()

    def record(self, camera: str, event: Dict[str, Any]) -> None:
        """Write the event, unless it is known."""
        if not self._seen.add(event["id"]):
            return
        row = {column: event[column] for column in COLUMNS if column in event}
        self._writer.writerow({**row, "camera": camera, "name": event[event["kind"]]})
        self._file.flush()


def connect(chosen: argparse.Namespace, recorder: Recorder) -> mqtt.Client:
    """A client whose session the broker keeps while this program is away."""

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"edgecount/{chosen.device}/+/event", qos=1)

    def on_message(client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        recorder.record(message.topic.split("/")[-2], json.loads(message.payload))
        # Only now does the broker forget it: a crash before this line brings it again.
        client.ack(message.mid, message.qos)

    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=chosen.client_id,
        clean_session=False,
        manual_ack=True,
    )
    if chosen.username:
        client.username_pw_set(chosen.username, chosen.password)
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect(chosen.host, chosen.port)
    return client


def main() -> None:
    """Read the command line, then record until interrupted."""
    parser = argparse.ArgumentParser(description="Append edgecount's events to a CSV file.")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--username")
    parser.add_argument("--password")
    parser.add_argument("--device", default="+", help="+ for all devices")
    parser.add_argument("--client-id", default="edgecount-subscriber")
    parser.add_argument("--file", type=Path, default=Path("counts.csv"))
    chosen = parser.parse_args()
    connect(chosen, Recorder(chosen.file)).loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
