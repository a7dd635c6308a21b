"""ingest's OpenAPI 3.1 document (docs/openapi.json), generated from the models and the tables of refusals and calls."""

from __future__ import annotations

from services.ingest.openapi.calls import CALLS
from services.ingest.openapi.parts import Json, path_item
from services.ingest.openapi.schemas import schemas


def document() -> Json:
    """The OpenAPI document."""
    paths = dict.fromkeys(call.path for call in CALLS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Groundswell ingest",
            "version": "1.0.0",
            "summary": "Accepts petition signatures.",
            "description": (
                "An accepted signature is durable: the answer 202 comes after Kafka's acknowledgement. It is decided a"
                " moment later; `status_url` returns the outcome. Errors are problem details (RFC 9457);"
                " the last part of `type` names the problem. 429 and 503 carry `Retry-After`."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "signatures", "description": "Signing, and the status of signatures."},
            {"name": "petitions", "description": "The petitions."},
        ],
        "paths": {path: path_item(path, [call for call in CALLS if call.path == path]) for path in paths},
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An administrator's token, or a partner's API key.",
                },
                "api_key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "A partner's API key.",
                },
            },
        },
    }
