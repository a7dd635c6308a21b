"""The form of records: key, value, CloudEvents headers."""
