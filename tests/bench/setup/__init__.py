"""The environment of a benchmark: parts, services and peers, their petitions, and backlogs."""
