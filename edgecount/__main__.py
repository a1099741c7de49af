"""``python -m edgecount``."""

from edgecount.cli.main import main

main()
