"""A configuration with one camera and a broker on loopback."""

from edgecount.config import Settings


def settings_for(port: int, **mqtt: object) -> Settings:
    return Settings.model_validate(
        {
            "device": "lobby",
            "cameras": [
                {
                    "name": "door",
                    "source": "usb:0",
                    "lines": [{"name": "entrance", "from": [0.1, 0.5], "to": [0.9, 0.5]}],
                }
            ],
            "places": {"hall": {"in": ["door.entrance"]}},
            "mqtt": {"host": "127.0.0.1", "port": port, "state_interval_s": 0.1, **mqtt},
        }
    )
