"""How a rule says no: by name, before anybody thinks of HTTP. `services.ingest.web.problems` makes the answer of it."""

from __future__ import annotations

FieldError = dict[str, str]
"""One field that must be put right: ``field``, ``code`` and ``problem``, a sentence. Never the value that was sent."""


class NotAdmitted(Exception):
    """Something is refused. ``reason`` names one of `services.ingest.web.problems.KINDS`."""

    def __init__(self, reason: str, *, detail: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.errors = reason, detail, errors
