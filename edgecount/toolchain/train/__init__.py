"""Train, prune and export head detectors."""
