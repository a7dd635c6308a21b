"""ingest's OpenAPI document, made from the models and the table of refusals (docs/openapi.json)."""
