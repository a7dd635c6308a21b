"""Shared by all HTTP servers: problem details, the sign form, limits of connections, answers in one write."""
