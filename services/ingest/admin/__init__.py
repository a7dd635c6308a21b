"""The audit log of administrators' calls, and the versions of petition changes (docs/adr/0014)."""
