"""Submitted signatures: their status, and commands about them."""
