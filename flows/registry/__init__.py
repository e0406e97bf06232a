"""Promotion, rollback and the table of registered models."""
