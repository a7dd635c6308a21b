"""What is sent in a run, and what must come of it."""
