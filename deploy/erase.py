"""`groundswell erase`: sends the request to erase one signature to ingest, and waits until verify has carried it out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import httpx
import typer
from pydantic import BeforeValidator, Field, SecretStr

from deploy.operate import console, use_running_stack
from services.ingest.access.credentials import AdminTokens, NamedSecrets, parse
from shared.runtime import addresses
from shared.runtime.settings import EnvironmentSettings, SettingsError, load, unset_when_empty

PATIENCE_SECONDS: Final = 30.0
"""A command is normally carried out within a second; a restart of any part takes less than half a minute."""

_ANSWER_SECONDS: Final = 15.0
"""ingest answers every request within ten."""
_POLL_SECONDS: Final = 0.2


class EraseSettings(EnvironmentSettings):
    """Settings of the command: ingest's address and the administrator's token."""

    ingest_url: Annotated[str | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="INGEST_URL", description="URL at which this machine reaches ingest."
    )
    public_ingest_url: Annotated[str | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="PUBLIC_INGEST_URL", description="URL at which browsers reach ingest."
    )
    admin_token: Annotated[SecretStr | None, BeforeValidator(unset_when_empty)] = Field(
        None, validation_alias="ADMIN_TOKEN", description="Bearer token of an administrator: the secret alone."
    )
    admin_tokens: AdminTokens = Field(
        NamedSecrets(""),
        validation_alias="ADMIN_TOKENS",
        description="The same value as for ingest; its first token is used if ADMIN_TOKEN is not set.",
    )

    def token(self) -> str | None:
        """Return the administrator's token, or None."""
        if self.admin_token is not None:
            return self.admin_token.get_secret_value()
        return next((one.secret for one in parse(self.admin_tokens.get_secret_value())), None)


class Refused(Exception):
    """The signature was not erased, or not in time; the message says why."""


@dataclass(frozen=True, slots=True)
class Erased:
    """An erased signature."""

    signature_id: UUID
    petition_id: str
    status: str
    """Its state, which does not change: ``verified``, ``withdrawn`` and so on."""
    erased_at: str
    """RFC 3339, in UTC."""


def erase(signature_id: UUID, *, actor: str | None, reason: str, as_json: bool) -> int:
    """Erase a signature, as `deploy.cli` describes it. Returns the exit code: 1 if it is not erased.

    Raises:
        typer.BadParameter: an argument or a setting is invalid.
    """
    settings = _settings()
    url, token = settings.ingest_url or settings.public_ingest_url, settings.token()
    if url is None or token is None:
        raise typer.BadParameter(
            "set INGEST_URL (or PUBLIC_INGEST_URL) and ADMIN_TOKEN (or ADMIN_TOKENS), or start a local stack with"
            " `groundswell up`"
        )
    host = _host(url)
    far = bool(addresses.far([host]))
    if far and not url.lower().startswith("https:"):
        console.print(f"The admin token goes unencrypted to {host}; use https", style="yellow", highlight=False)
    headers = {b"authorization": f"Bearer {token}".encode()}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=_ANSWER_SECONDS, trust_env=far) as http:
            _give(http, signature_id, actor=actor, reason=reason)
            erased = _wait(http, signature_id)
    except Refused as refused:
        if as_json:
            typer.echo(json.dumps({"ok": False, "signature_id": str(signature_id), "error": str(refused)}))
        else:
            console.print(str(refused), style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    if as_json:
        fields = {name: str(getattr(erased, name)) for name in Erased.__slots__}
        typer.echo(json.dumps({"ok": True, **fields}))
    else:
        typer.echo(
            f"Erased at {erased.erased_at}: signature {erased.signature_id} of {erased.petition_id}."
            f" It stays {erased.status}, and the count is as before."
        )
    return 0


def _settings() -> EraseSettings:
    use_running_stack()
    try:
        return load(EraseSettings)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


def _host(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise typer.BadParameter("the address of ingest must be like https://sign.example")
    return parts.host


def _give(http: httpx.Client, signature_id: UUID, *, actor: str | None, reason: str) -> None:
    """Send the request to ingest.

    Raises:
        Refused: ingest refuses it, or does not answer.
        typer.BadParameter: ingest refuses actor or reason as invalid.
    """
    try:
        words = {"reason": reason} if actor is None else {"actor": actor, "reason": reason}
        answer = http.post(f"/v1/signatures/{signature_id}/erase", json=words)
    except httpx.TransportError as error:
        raise Refused(
            f"ingest at {http.base_url.host} does not answer ({type(error).__name__}). Run the same command again:"
            " given twice, it is one command."
        ) from None
    if answer.status_code == httpx.codes.ACCEPTED:
        return
    problem = _problem(answer)
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        wrong = "; ".join(f"--{error['field']}: {error['problem']}" for error in problem.get("errors", []))
        raise typer.BadParameter(wrong or str(problem.get("detail")))
    raise Refused(f"Refused with {answer.status_code}: {problem.get('detail', 'the answer is not one of ingest')}")


def _wait(http: httpx.Client, signature_id: UUID) -> Erased:
    """Wait until the signature's status says that it is erased.

    Raises:
        Refused: it is not erased within `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        status = _status(http, signature_id)
        if status.get("erased_at") is not None:
            return Erased(signature_id, status["petition_id"], status["status"], status["erased_at"])
        if time.monotonic() > deadline:
            raise Refused(
                f"The command is stored, and was not carried out within {PATIENCE_SECONDS:.0f} s: verify is away or"
                " behind. It will be carried out; run the same command again to see."
            )
        time.sleep(_POLL_SECONDS)


def _status(http: httpx.Client, signature_id: UUID) -> dict[str, Any]:
    """Return the signature's status from ingest; empty if ingest does not answer 200."""
    try:
        answer = http.get(f"/v1/signatures/{signature_id}")
    except httpx.TransportError:
        return {}
    return _json(answer) if answer.status_code == httpx.codes.OK else {}


def _problem(answer: httpx.Response) -> dict[str, Any]:
    return _json(answer) if answer.headers.get("content-type") == "application/problem+json" else {}


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
