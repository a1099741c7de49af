"""Device telemetry: one file per platform."""
