"""Command line: one file per sub-command, found by file name, no logic."""
