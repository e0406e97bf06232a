"""Decoding images safely, and shards of face crops."""
