"""Bringing pictures in: intake of new folders, fetching of open sets, and the manifest."""
