"""From frames to tracks: backends, detectors and what they are made of."""
