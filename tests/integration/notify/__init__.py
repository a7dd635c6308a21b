"""notify on real parts."""
