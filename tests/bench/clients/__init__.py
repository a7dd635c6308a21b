"""Clients: wrk, crowds of viewers, and single requests whose answers are examined."""
