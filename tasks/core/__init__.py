"""Nouns that two or more rooms share; imports no room."""
