"""How large an installation must be, computed from measured costs; `docs/capacity.md` explains it."""
