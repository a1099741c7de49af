"""Count people by their heads, in real time, next to the camera."""

__version__ = "0.1.0"
