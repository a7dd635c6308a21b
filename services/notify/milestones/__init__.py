"""Milestones: turns each into one delivery per target."""
