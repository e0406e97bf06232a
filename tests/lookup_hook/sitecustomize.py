"""Writes down every name that a Python process looks up: a folder for PYTHONPATH, in tests."""

import os
import sys

_EVENTS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def _write_down(event, arguments):
    if event in _EVENTS:
        with open(os.environ["LOOKUPS_FILE"], "a", encoding="utf-8") as lines:
            lines.write(f"{arguments[0]}\t{' '.join(sys.orig_argv)[:100]!r}\n")


if os.environ.get("LOOKUPS_FILE"):
    sys.addaudithook(_write_down)
