"""A whole topic, read by every process on its own."""
