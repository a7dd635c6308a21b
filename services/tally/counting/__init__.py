"""Counting: from facts to counts in Redis; audits, repairs and announcements of these counts."""
