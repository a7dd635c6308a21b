"""What a run sends, and the expected outcome."""
