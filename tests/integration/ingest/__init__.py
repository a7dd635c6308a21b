"""ingest on real parts."""
