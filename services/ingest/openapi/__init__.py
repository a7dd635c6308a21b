"""ingest's OpenAPI document (docs/openapi.json), generated from the models and the table of refusals."""
