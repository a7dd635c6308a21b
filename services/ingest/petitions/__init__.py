"""Petitions: the calls that read and change them, the rules for their states, and their versions."""
