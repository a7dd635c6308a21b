"""Whether what was seen is right."""
