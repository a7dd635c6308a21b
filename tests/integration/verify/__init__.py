"""verify on real parts."""
