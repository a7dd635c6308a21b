"""Measures the cost of work, and checks that it was counted correctly."""
