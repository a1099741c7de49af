"""A process that counts until it is killed. Run as a script; see ``tests/.../test_crash.py``.

It records a scripted stream of crossings and tells on its standard output, one line each
and written with one system call: ``recorded N`` before event N is handed to the ledger,
``published SEQ ID`` when the ledger gave it out.
"""

import os
import random
import sys
import time
from pathlib import Path
from typing import List

from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.count.totals import PlaceTotals
from edgecount.records import CountEvent


def main(path: str, seed: str, commit_ms: str, acknowledge: str) -> None:
    rng = random.Random(int(seed))
    ledger = Ledger.open(LedgerSettings(path=Path(path), commit_ms=int(commit_ms)))
    assert ledger.degraded is None, ledger.degraded
    inside = ledger.places().get("hall", PlaceTotals())

    def published(events: List[CountEvent]) -> None:
        _tell("".join(f"published {e.seq} {e.id}\n" for e in events))
        if acknowledge == "yes" and rng.random() < 0.5:
            ledger.acknowledge(events[rng.randrange(len(events))].seq)

    ledger.listen(on_committed=published)
    _tell(f"restored {sum(t.into + t.out for t in ledger.totals('door').lines.values())}\n")
    for n in range(10_000_000):
        direction = "in" if rng.random() < 0.6 or inside.occupancy == 0 else "out"
        step = 1 if direction == "in" else -1
        inside = PlaceTotals(
            inside.occupancy + step,
            inside.into + (step > 0),
            inside.out + (step < 0),
            max(inside.peak, inside.occupancy + step),
        )
        event = CountEvent("line", "door", rng.choice("ab"), direction, n, n, time.time())
        _tell(f"recorded {n + 1} {time.monotonic()}\n")
        ledger.record([event], {"hall": inside})
        time.sleep(rng.random() * 0.004)


def _tell(text: str) -> None:
    os.write(1, text.encode("ascii"))


if __name__ == "__main__":
    main(*sys.argv[1:])
