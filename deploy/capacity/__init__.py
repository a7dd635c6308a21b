"""Computes the size of an installation from measured costs; `docs/capacity.md` explains it."""
