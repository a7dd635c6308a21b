"""Looks at the running system from outside until it is quiet, and shows it."""
