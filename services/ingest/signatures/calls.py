"""Calls about a submitted signature: its status, and the commands confirm, withdraw, invalidate, erase."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, TypeVar
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.ingest.access.access import Access, Role
from services.ingest.admin.events import AdminEvent, AdminEvents
from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem
from services.ingest.signatures.disclosure import without_duplicates, without_erasures
from services.ingest.signatures.effect import without_effect
from services.ingest.signatures.store import CommandTarget, Outcome, OutcomeStore
from services.ingest.signing.admission import Erasure, checked_erasure
from services.ingest.signing.intake import Intake
from services.ingest.web.answers import Answers
from services.ingest.web.bodies import read_json, refusal_of
from services.ingest.web.clients import Clients
from services.ingest.web.limits import ClientRate
from services.ingest.web.schemas import CommandSubmitted, SignatureStatus, status_url
from shared.contract.events import (
    ChangeCommand,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    PetitionId,
    WithdrawCommand,
)
from shared.contract.identity import command_id, issued_here
from shared.contract.states import SignatureState
from shared.contract.topics import SIGNATURES_SUBMITTED
from shared.runtime.failures import is_transient
from shared.web.malformed import fields_of
from shared.web.problems import Problem, prefers_html

log = structlog.get_logger(__name__)

Found = TypeVar("Found", Outcome, CommandTarget)

COMMANDS: Final[dict[str, type[ChangeCommand]]] = {
    "confirm": ConfirmCommand,
    "withdraw": WithdrawCommand,
    "invalidate": InvalidateCommand,
    "erase": EraseCommand,
}
_ADMIN_ONLY: Final = (InvalidateCommand, EraseCommand)
_PETITION_ID: Final[TypeAdapter[str]] = TypeAdapter(PetitionId)
ERASURE_BYTES: Final = 16 * 1024
"""600 characters take up to 7.2 kB if each is two JSON escapes."""


class SignatureEndpoints:
    """Looks up signatures by id, and publishes commands about them."""

    def __init__(
        self,
        *,
        intake: Intake,
        store: OutcomeStore,
        access: Access,
        events: AdminEvents,
        clients: Clients,
        rate: ClientRate,
        answers: Answers,
        metrics: IngestMetrics,
        pepper: bytes,
    ) -> None:
        self._intake, self._store, self._access, self._events = intake, store, access, events
        self._answers = answers
        self._clients, self._rate, self._metrics, self._pepper = clients, rate, metrics, pepper

    async def status(self, request: Request) -> Response:
        """``GET /v1/signatures/{signature_id}``: as JSON, or as a page if the client prefers HTML.

        Raises:
            Problem: it was never submitted here, or the outcome cannot be looked up.
        """
        asked = fields_of(request.scope)
        caller = self._access.caller(asked, request.scope)
        if caller is None and (wait := self._rate.wait(self._clients.of(request.scope))):
            raise problem("too_many_requests", retry_after=int(wait) + 1)
        signature_id = self._issued_id(request)
        outcome = await self._find(signature_id, self._store.find(signature_id))
        answer = _undecided(signature_id) if outcome is None else _decided(outcome)
        trusted = caller is not None and outcome is not None and self._intake.speaks_for(caller, outcome.petition_id)
        if not trusted and outcome is not None:
            answer = without_duplicates(answer, self._intake.petition(outcome.petition_id))
            answer = without_erasures(answer)
        if prefers_html(asked.get(b"accept")):
            return self._answers.status_page(answer)
        headers = {"cache-control": "no-store", "vary": "accept"}  # it changes, and is private to the signer
        return Response(answer.model_dump_json(), 200, headers, media_type="application/json")

    async def command(self, request: Request) -> Response:
        """``POST /v1/signatures/{signature_id}/{confirm|withdraw|invalidate|erase}``

        Raises:
            Problem: the caller is not allowed to, there is no such signature, it is not decided yet, or the command can
                have no effect; for an erasure, also if the body does not name actor and reason.
        """
        command = COMMANDS.get(request.path_params["command"])
        if command is None:
            raise problem("not_found")
        headers = fields_of(request.scope)
        caller = self._access.require(headers, request.scope)
        call: str = request.path_params["command"]
        if command in _ADMIN_ONLY and caller.role is not Role.ADMIN:
            raise self._events.refusal("admin_only", AdminEvent.of(headers, caller, call, ""))
        signature_id = self._issued_id(request)
        words = await _read_words(request, headers, caller.name) if command is EraseCommand else {}
        event_id = command_id(signature_id, command.TYPE)
        target = await self._find(signature_id, self._store.find_target(signature_id, event_id))
        if target is None:
            # The signer key, which chooses the signature's lane, is not known before verify has stored it.
            raise problem("signature_undecided")
        event = AdminEvent.of(headers, caller, call, target.petition_id, signature_id=signature_id)
        if not self._intake.speaks_for(caller, target.petition_id):
            raise self._events.refusal("signature_unknown", event)
        if why := without_effect(command, target.state, carried_out=target.carried_out):
            raise problem(
                "command_without_effect", detail=f"This command can change nothing about the signature: {why}."
            )
        moment = self._intake.moment()
        await self._events.ask(event)
        about = {"signature_id": signature_id, "petition_id": target.petition_id, "requested_at": moment}
        await self._intake.publish(
            SIGNATURES_SUBMITTED,
            command.model_validate({**about, **words}),
            key=target.signer_key.hex,
            event_id=event_id,
            petition_id=target.petition_id,
            moment=moment,
        )
        await self._finish(event)
        self._metrics.command_accepted.inc()
        url = status_url(signature_id)
        answer = CommandSubmitted(signature_id=signature_id, status_url=url)
        return Response(answer.model_dump_json(), 202, {"location": url}, media_type="application/json")

    async def _finish(self, event: AdminEvent) -> None:
        """Record that the command is stored. If PostgreSQL is away now, the command is stored nevertheless."""
        try:
            await self._events.finish(event, "done")
        except Problem:
            self._events.say(event, "asked")

    def _issued_id(self, request: Request) -> UUID:
        """The id in the path, if this system can have issued it: guessed ids never reach PostgreSQL."""
        text: str = request.path_params["signature_id"]
        try:
            signature_id = UUID(text)
        except ValueError:
            raise problem("signature_unknown") from None
        if str(signature_id) != text.lower() or not issued_here(self._pepper, signature_id):
            raise problem("signature_unknown")
        return signature_id

    async def _find(self, signature_id: UUID, looking: Awaitable[Found | None]) -> Found | None:
        """The result of a lookup, if verify can have written it: rows may have been edited by hand."""
        try:
            found = await looking
        except Exception as error:
            if not is_transient(error):
                raise
            raise problem("postgres_away") from error
        if found is not None and not _is_of_a_petition(found):
            log.error("outcome_impossible", signature_id=str(signature_id))
            raise problem("signature_unknown")
        return found


def _is_of_a_petition(found: Outcome | CommandTarget) -> bool:
    try:
        _PETITION_ID.validate_python(found.petition_id)
    except ValidationError:
        return False
    return True


async def _read_words(request: Request, headers: Mapping[bytes, bytes], caller: str) -> dict[str, str]:
    """Actor and reason of an erasure, from the body; the actor defaults to `caller`.

    Raises:
        Problem: the body cannot be parsed, or actor or reason is invalid.
    """
    body = await read_json(headers, request.receive, ERASURE_BYTES)
    try:
        # Unknown fields are refused: a reason under a misspelt name would be lost.
        return checked_erasure(Erasure.model_validate_json(body), caller).model_dump()
    except ValidationError as error:
        raise refusal_of(error) from None


def _decided(outcome: Outcome) -> SignatureStatus:
    return SignatureStatus.model_validate(
        {
            "signature_id": outcome.signature_id,
            "petition_id": outcome.petition_id,
            "status": outcome.state,
            "reason": outcome.reason,
            "decided_at": outcome.decided_at,
            "erased_at": outcome.erased_at,
        }
    )


def _undecided(signature_id: UUID) -> SignatureStatus:
    return SignatureStatus(
        signature_id=signature_id, petition_id=None, status=SignatureState.SUBMITTED, reason=None, decided_at=None
    )
