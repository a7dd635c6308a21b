"""Floors: the bare transport of a signature, without any of its rules. They are not fit for production."""
