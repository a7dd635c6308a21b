"""tally on real parts."""
