"""States that cannot be, written by hand: tally counts on, and what was hit is right again."""
