"""The running service: wires the stages together."""
