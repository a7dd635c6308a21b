"""Topics that every process reads in full."""
