"""A device that counts and publishes until it is killed. Run as a script: ledger, port, seed."""

import random
import sys
import time
from pathlib import Path

from support.mqtt import settings_for

from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.publish.mqtt import create
from edgecount.records import CountEvent


def main(path: str, port: str, seed: str, count: str) -> None:
    rng = random.Random(int(seed))
    ledger = Ledger.open(LedgerSettings(path=Path(path), commit_ms=10))
    sink = create(settings_for(int(port)), ledger)
    ledger.listen(on_committed=lambda _events: sink.notify())
    sink.start()
    for n in range(int(count)):
        ledger.record([CountEvent("line", "door", "entrance", "in", n, n, time.time())])
        time.sleep(rng.random() * 0.002)
    while ledger.backlog or not ledger.flush():
        time.sleep(0.01)
    sink.stop()
    ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
