"""HTTP of ingest: bodies, limits, answers and pages."""
