"""Container health check: exits with 0 while /healthz says that every stage turns."""

import os
import sys
import urllib.error
import urllib.request


def main(port: str) -> int:
    """0 when alive, else 1."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
            return 0
    except (OSError, urllib.error.URLError):
        return 1


if __name__ == "__main__":
    sys.exit(main(os.environ.get("EDGECOUNT_PORT", "8080")))
