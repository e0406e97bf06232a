"""Checks of a project's files, images, registry and ledger."""
