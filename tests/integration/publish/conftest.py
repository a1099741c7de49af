"""What the tests of publishing share: a broker, a ledger, sinks that are stopped at the end."""

from pathlib import Path
from typing import Callable, Iterator, List, Mapping, Optional

import pytest
from support.mosquitto import Broker, Certificates, make_certificates
from support.mqtt import settings_for

from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.publish.mqtt import MqttSink, create

MakeSink = Callable[..., MqttSink]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path).start()
    yield broker
    broker.kill()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(LedgerSettings(path=tmp_path / "ledger.db", commit_ms=20))
    yield ledger
    ledger.close()


@pytest.fixture
def make_sink(ledger: Ledger) -> Iterator[MakeSink]:
    made: List[MqttSink] = []

    def make(
        port: int, handlers: Optional[Mapping[str, object]] = None, **mqtt: object
    ) -> MqttSink:
        sink = create(settings_for(port, **mqtt), ledger, handlers)
        ledger.listen(on_committed=lambda _events: sink.notify())
        made.append(sink)
        sink.start()
        return sink

    yield make
    for sink in made:
        sink.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))
