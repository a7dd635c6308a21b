"""Observes a run from outside."""
