"""``edgecount doctor``: is this device fit to run this configuration, and if not, what to do."""
