"""Judges what was observed."""
