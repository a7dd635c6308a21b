"""Floors: the same road with everything left out that is not the road itself. Nobody could run these in production."""
