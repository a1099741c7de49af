"""Metrics, health, logs and telemetry."""
