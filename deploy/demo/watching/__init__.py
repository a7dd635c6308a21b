"""Observes the running system from outside until it is quiet, and displays it."""
