"""The form of a record: key, value, CloudEvents headers."""
