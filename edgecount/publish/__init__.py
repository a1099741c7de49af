"""Counts leave the device: one file per sink."""
