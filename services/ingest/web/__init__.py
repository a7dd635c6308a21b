"""ingest's HTTP as such: bodies, limits, answers, pages, and the OpenAPI document."""
