"""Ways to choose a clipping point: one file per method, see :mod:`.base`."""
