"""What administrators do: changes of petitions under a version, and the record of every call (docs/adr/0014)."""
