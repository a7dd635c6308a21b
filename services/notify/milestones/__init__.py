"""Milestones: who has to be told, once for each."""
