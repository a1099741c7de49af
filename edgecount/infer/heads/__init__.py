"""Decoders of detector outputs: one file per family."""
