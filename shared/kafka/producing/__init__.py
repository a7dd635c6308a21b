"""Putting records on topics."""
