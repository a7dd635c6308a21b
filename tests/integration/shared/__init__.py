"""Tests of the code that all services share, on real parts."""
