"""Sources of frames: one file per kind."""
