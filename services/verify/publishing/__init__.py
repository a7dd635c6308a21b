"""The records that verify publishes."""
