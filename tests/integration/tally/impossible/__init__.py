"""Impossible states, written by hand: tally goes on counting, and the petition recovers."""
