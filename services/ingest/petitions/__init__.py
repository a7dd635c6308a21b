"""Petitions: the calls that read and change them, their rules, and their versions."""
