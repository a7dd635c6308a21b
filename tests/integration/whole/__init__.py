"""All four services together."""
