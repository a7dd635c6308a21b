"""What all services share, on real parts."""
