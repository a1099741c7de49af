"""Measure the ledger and the way to the broker; prints JSON.

    python tests/bench/durability.py record   --seconds 30    # cost on the counting thread
    python tests/bench/durability.py volume                   # bytes written per day
    python tests/bench/durability.py catch-up --events 180000 # needs mosquitto

``volume`` runs a simulated day: 10,000 events alone, each acknowledged before the next, and
then 10,000 in 100 bursts; with figures of every minute and ten zones' samples. Bytes are what
the kernel accounts to the ledger's writer (``write_bytes``, whole 4-KiB pages), without the
file system's own journal.
"""

import argparse
import json
import platform
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, List

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from edgecount.config import LedgerSettings, Settings  # noqa: E402
from edgecount.count.ledger import Ledger  # noqa: E402
from edgecount.count.totals import PlaceTotals  # noqa: E402
from edgecount.publish.mqtt import create  # noqa: E402
from edgecount.records import CountEvent, LineTotals, Snapshot  # noqa: E402

DAY_S = 86_400.0
NOON = 1_795_521_600.0


def event(n: int, ts: float) -> CountEvent:
    return CountEvent("line", "door", f"line{n % 4}", "out" if n % 3 == 0 else "in", n, n, ts)


def quantile(values: List[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def record(folder: Path, seconds: float, rate: float) -> Dict[str, object]:
    ledger = Ledger.open(LedgerSettings(path=folder / "ledger.db"))
    costs: List[float] = []
    start = time.perf_counter()
    for n in range(int(seconds * rate)):
        while time.perf_counter() < start + n / rate:
            time.sleep(0.0005)
        before = time.perf_counter()
        ledger.record([event(n, time.time())], {"hall": PlaceTotals(n, n, 0, n)})
        costs.append(time.perf_counter() - before)
    ledger.close()
    return {
        "events_per_s": rate,
        "events": len(costs),
        "p50_us": round(quantile(costs, 0.5) * 1e6, 1),
        "p99_us": round(quantile(costs, 0.99) * 1e6, 1),
        "worst_us": round(max(costs) * 1e6, 1),
    }


class SimulatedDay:
    """Both clocks, in the hands of the benchmark."""

    def __init__(self) -> None:
        self.passed = 0.0

    def wall(self) -> float:
        return NOON + self.passed

    def steady(self) -> float:
        return self.passed


def volume(folder: Path, events: int, bursts: int) -> Dict[str, object]:
    clock = SimulatedDay()
    ledger = Ledger.open(
        LedgerSettings(path=folder / f"day{bursts}.db", commit_ms=1),
        clock=clock.wall,
        monotonic=clock.steady,
    )
    ledger.flush()
    began, inside = ledger.bytes_written, 0
    gap = DAY_S / bursts
    for burst in range(bursts):
        for n in range(events // bursts):
            inside += 1
            ledger.record(
                [event(burst + n, clock.wall())], {"hall": PlaceTotals(inside, inside, 0, inside)}
            )
        ledger.flush()
        ledger.acknowledge(ledger.seq)
        until = clock.passed + gap
        while clock.passed < until:
            clock.passed = min(until, clock.passed + 30.0)
            ledger.sample({("door", f"zone{z}"): burst % 3 for z in range(10)}, {"hall": inside})
            ledger.flush()
    written = ledger.bytes_written - began
    ledger.close()
    return {"events": events, "bursts": bursts, "mb_per_day": round(written / 1e6, 1)}


def catch_up(folder: Path, events: int) -> Dict[str, object]:
    import psutil
    from support.mosquitto import Broker, Subscriber, wait_until

    broker = Broker(folder).start()
    settings = Settings.model_validate(
        {
            "device": "lobby",
            "cameras": [{"name": "door", "source": "usb:0"}],
            "mqtt": {"host": "127.0.0.1", "port": broker.port, "state_interval_s": 0.1},
        }
    )
    ledger = Ledger.open(LedgerSettings(path=folder / "ledger.db"))
    sink = create(settings, ledger)
    ledger.listen(on_committed=lambda _events: sink.notify())
    process = psutil.Process()
    for start in range(0, events, 500):
        ledger.record([event(n, NOON + n / 50.0) for n in range(start, min(events, start + 500))])
    ledger.flush(60)
    before = process.memory_info().rss
    state_topic = "edgecount/lobby/door/state"
    states = Subscriber(broker.port, state_topic)
    received = folder / "received"
    counter = subprocess.Popen(
        ["mosquitto_sub", "-p", str(broker.port), "-q", "1", "-t", "edgecount/lobby/door/event"],
        stdout=received.open("wb"),
    )
    time.sleep(0.5)
    done = threading.Event()

    def publish_states() -> None:
        while not done.wait(0.05):
            sink.publish_state(Snapshot("door", time.monotonic(), 1, 1, {"a": LineTotals()}))

    threading.Thread(target=publish_states, daemon=True).start()
    sink.start()
    wait_until(lambda: sink.connected)
    began, most, cpu = time.monotonic(), before, process.cpu_times().user
    while ledger.backlog:
        most = max(most, process.memory_info().rss)
        time.sleep(0.1)
    took = time.monotonic() - began
    cpu = process.cpu_times().user - cpu
    done.set()
    wait_until(lambda: received.read_bytes().count(b"\n") >= events, 30.0)
    counter.terminate()
    ages = [m.at - float(m.json()["ts"]) for m in states.messages]  # type: ignore[arg-type]
    seqs = [json.loads(line)["seq"] for line in received.read_bytes().splitlines()]
    sink.stop()
    ledger.close()
    broker.kill()
    return {
        "events": events,
        "seconds": round(took, 1),
        "events_per_s": round(events / took),
        "cpu_us_per_event": round(cpu / events * 1e6),
        "in_order": seqs == list(range(1, events + 1)),
        "states": len(ages),
        "state_age_p50_ms": round(quantile(ages, 0.5) * 1e3, 1),
        "state_age_p99_ms": round(quantile(ages, 0.99) * 1e3, 1),
        "rss_before_mb": round(before / 1e6, 1),
        "rss_most_mb": round(most / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["record", "volume", "catch-up"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="Where to write; /tmp where not given.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        if chosen.what == "record":
            result: object = record(folder, chosen.seconds, chosen.rate)
        elif chosen.what == "volume":
            result = [volume(folder, chosen.events, b) for b in (chosen.events, 100)]
        else:
            result = catch_up(folder, chosen.events)
    print(
        json.dumps(
            {
                "result": result,
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "machine": f"{platform.machine()} {platform.release()}",
            }
        )
    )


if __name__ == "__main__":
    main()
