"""``GET``, ``PUT`` and ``PATCH /v1/petitions/{petition_id}``, and ``GET /v1/petitions``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from services.ingest.access.access import Access, Caller, Role
from services.ingest.admin.events import AdminEvent, AdminEvents
from services.ingest.petitions.changes import Decide, PetitionChanges
from services.ingest.petitions.documents import (
    etag_of,
    left_out,
    merged,
    state_document,
    unknown_fields,
)
from services.ingest.petitions.rules import petition_errors
from services.ingest.problems import problem
from services.ingest.signing.intake import Intake
from services.ingest.web.bodies import MERGE_PATCH, read_json, refusal_of, too_large
from services.ingest.web.schemas import ListedPetition, PetitionBody, PetitionList, public_petition
from shared.contract.bounds.texts import is_slug
from shared.contract.catalogue import Catalogue, admission_at
from shared.contract.events import PetitionChanged, PetitionState
from shared.web.entity_tags import matches
from shared.web.malformed import fields_of

PETITION_BYTES: Final = 768 * 1024
"""A text of 50,000 characters takes up to 600 kB if every character is a JSON escape. A body within this limit also fits,
as UTF-8, into one Kafka record of 1 MiB."""

LIST_AT_MOST: Final = 500

State = TypeVar("State", bound=PetitionState)

_VARY: Final = {"vary": "Authorization, X-API-Key"}
"""An administrator sees more at the same address."""
_PRIVATE: Final = {"cache-control": "private, no-store", **_VARY}


class PetitionEndpoints:
    """Shows and changes petitions."""

    def __init__(
        self, *, intake: Intake, catalogue: Catalogue, access: Access, changes: PetitionChanges, events: AdminEvents
    ) -> None:
        self._intake, self._catalogue, self._access = intake, catalogue, access
        self._changes, self._events = changes, events

    async def handle(self, request: Request) -> Response:
        """All methods of a petition's address, in one route, so that a 405 lists them all in ``Allow``.

        Raises:
            Problem: see docs/openapi.json.
        """
        petition_id: str = request.path_params["petition_id"]
        if request.method == "PUT":
            return await self._put(request, petition_id)
        if request.method == "PATCH":
            return await self._patch(request, petition_id)
        return await self._get(request, petition_id)

    # ---------------------------------------------------------------------------------------------------------- reading

    async def _get(self, request: Request, petition_id: str) -> Response:
        caller = self._access.caller(fields_of(request.scope), request.scope)
        petition = self._intake.petition(petition_id)
        if caller is not None and caller.role is Role.ADMIN:
            petition = await self._changes.current(petition_id)
            if petition is not None and caller.may(petition.organisation.slug):
                return self._whole(request, petition)
        if petition is None or not petition.published:
            unknown = problem("petition_unknown")
            unknown.headers.update(_PRIVATE)  # a cache might serve the 404 to an administrator
            raise unknown
        body = public_petition(petition, datetime.now(UTC)).model_dump_json()
        # Its admission changes with the clock, so it may be cached only briefly.
        return Response(body, 200, {"cache-control": "public, max-age=5", **_VARY}, media_type="application/json")

    @staticmethod
    def _whole(request: Request, petition: PetitionChanged) -> Response:
        etag = etag_of(petition)
        headers = {"etag": etag, **_PRIVATE}
        if matches(request.headers.get("if-none-match", ""), etag, weakly=True):
            return Response(status_code=304, headers=headers)
        return Response(petition.model_dump_json(), 200, headers, media_type="application/json")

    async def list(self, request: Request) -> Response:
        """``GET /v1/petitions``: the petitions that an administrator may change, by id.

        Raises:
            Problem: the caller is not an administrator, or the query is invalid.
        """
        caller = self._administrator(request, "list", "")
        query = _Query.of(request)
        self._intake.require_complete()
        found = sorted(
            (
                petition
                for petition in self._catalogue
                if petition.petition_id > query.after
                and caller.may(petition.organisation.slug)
                and query.organisation in (None, petition.organisation.slug)
            ),
            key=lambda petition: petition.petition_id,
        )
        shown, more = found[: query.limit], len(found) > query.limit
        moment = datetime.now(UTC)
        answer = PetitionList(
            petitions=[
                ListedPetition(
                    **petition.model_dump(include={"petition_id", "organisation", "title", "published", "changed_at"}),
                    paused=petition.paused is not None,
                    admission=admission_at(petition, moment),
                    etag=etag_of(petition),
                )
                for petition in shown
            ],
            next=query.next_url(shown[-1].petition_id) if more else None,
        )
        return Response(answer.model_dump_json(), 200, _PRIVATE, media_type="application/json")

    # --------------------------------------------------------------------------------------------------------- changing

    async def _put(self, request: Request, petition_id: str) -> Response:
        caller = self._administrator(request, "put", petition_id)
        _require_id(petition_id)
        _require_known_parameters(request, "replace")
        replace = _flag(request, "replace")
        headers = fields_of(request.scope)
        body = _read(await read_json(headers, request.receive, PETITION_BYTES), PetitionBody)
        if body.petition_id not in (None, petition_id):
            raise problem(
                "invalid_fields", errors=[_wrong("petition_id", "not_the_same", "is not the one of the address")]
            )
        state = PetitionState(**{name: getattr(body, name) for name in PetitionState.model_fields})
        _require_clean(state)
        event = AdminEvent.of(headers, caller, "put", petition_id)

        def decide(before: PetitionChanged | None) -> PetitionState:
            self._require_organisations(event, before, state)
            _require_preconditions(headers, before)
            if before is not None and not replace and (missing := left_out(before, body)):
                errors = [_wrong(name, "left_out", "is set, and is not in the body") for name in missing]
                raise problem("fields_left_out", errors=errors)
            return state

        return await self._change(event, decide)

    async def _patch(self, request: Request, petition_id: str) -> Response:
        caller = self._administrator(request, "patch", petition_id)
        _require_known_parameters(request)
        headers = fields_of(request.scope)
        patch = _read_patch(await read_json(headers, request.receive, PETITION_BYTES, MERGE_PATCH))
        if unknown := unknown_fields(patch):
            raise problem(
                "invalid_fields",
                errors=[_wrong(name, "unknown_field", "is no field that can be changed") for name in unknown],
            )
        event = AdminEvent.of(headers, caller, "patch", petition_id)

        def decide(before: PetitionChanged | None) -> PetitionState:
            if before is None or not caller.may(before.organisation.slug):
                # Any other answer would reveal that another organisation's petition exists.
                raise problem("petition_unknown") if before is None else self._events.refusal("petition_unknown", event)
            _require_preconditions(headers, before)
            document = json.dumps(merged(state_document(before), patch), ensure_ascii=False).encode()
            if len(document) > PETITION_BYTES:
                raise too_large(PETITION_BYTES)
            state = _read(document, PetitionState)
            _require_clean(state)
            self._require_organisations(event, before, state)
            return state

        return await self._change(event, decide)

    async def _change(self, event: AdminEvent, decide: Decide) -> Response:
        made = await self._changes.make(event, decide)
        headers = {"etag": made.etag, **_PRIVATE}
        status = 201 if made.before is None else 200
        return Response(made.petition.model_dump_json(), status, headers, media_type="application/json")

    # ------------------------------------------------------------------------------------------------------- permissions

    def _administrator(self, request: Request, call: str, petition_id: str) -> Caller:
        headers = fields_of(request.scope)
        caller = self._access.require(headers, request.scope)
        if caller.role is not Role.ADMIN:
            raise self._events.refusal("admin_only", AdminEvent.of(headers, caller, call, petition_id))
        return caller

    def _require_organisations(self, event: AdminEvent, before: PetitionChanged | None, after: PetitionState) -> None:
        """Require that a limited token neither takes over another organisation's petition nor hands one over."""
        slugs = {after.organisation.slug} | ({before.organisation.slug} if before is not None else set())
        if not all(event.caller.may(slug) for slug in slugs):
            raise self._events.refusal("other_organisation", event)


@dataclass(frozen=True, slots=True)
class _Query:
    organisation: str | None
    after: str
    limit: int

    @classmethod
    def of(cls, request: Request) -> _Query:
        """Parse the query of a list.

        Raises:
            Problem: 422.
        """
        given = request.query_params
        limit = given.get("limit", "100")
        errors = _unknown_parameters(request, "organisation", "after", "limit")
        errors += [_wrong(name, "given_twice", "must be given once") for name in given if len(given.getlist(name)) > 1]
        if not re.fullmatch("[0-9]{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= LIST_AT_MOST:
            errors.append(_wrong("limit", "out_of_range", f"must be a number from 1 to {LIST_AT_MOST}"))
        for name in ("organisation", "after"):
            if name in given and not is_slug(given[name]):
                errors.append(_wrong(name, "not_a_slug", "must be 1 to 64 of a-z, 0-9 and -, and not begin with -"))
        if errors:
            raise problem("invalid_fields", errors=errors)
        return cls(given.get("organisation"), given.get("after", ""), int(limit))

    def next_url(self, last: str) -> str:
        """The address of the list's next part, after the petition `last`."""
        query: dict[str, Any] = {"after": last, "limit": self.limit}
        if self.organisation is not None:
            query["organisation"] = self.organisation
        return f"/v1/petitions?{urlencode(query)}"


def _require_id(petition_id: str) -> None:
    if not is_slug(petition_id):
        raise problem(
            "invalid_fields",
            errors=[
                _wrong("petition_id", "petition_id_invalid", "must be 1 to 64 of a-z, 0-9 and -, and not begin with -")
            ],
        )


def _require_clean(state: PetitionState) -> None:
    if errors := petition_errors(state):
        raise problem("invalid_fields", errors=errors)


def _require_preconditions(headers: Mapping[bytes, bytes], before: PetitionChanged | None) -> None:
    """Check If-Match and If-None-Match (RFC 9110, section 13.2.2).

    Raises:
        Problem: 412, they do not hold.
    """
    etag = None if before is None else etag_of(before)
    wanted, unwanted = (headers.get(name) for name in (b"if-match", b"if-none-match"))
    if wanted is not None and not matches(wanted.decode("latin-1"), etag):
        raise problem("precondition_failed")
    if unwanted is not None and matches(unwanted.decode("latin-1"), etag, weakly=True):
        raise problem("precondition_failed")


def _unknown_parameters(request: Request, *known: str) -> list[dict[str, str]]:
    """Errors for unknown parameters: a filter or flag with a typo would silently have no effect."""
    return [
        _wrong(name, "unknown_parameter", "is no parameter of this call")
        for name in request.query_params
        if name not in known
    ]


def _require_known_parameters(request: Request, *known: str) -> None:
    if unknown := _unknown_parameters(request, *known):
        raise problem("invalid_fields", errors=unknown)


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.getlist(name)
    if given not in ([], ["true"], ["false"]):
        raise problem("invalid_fields", errors=[_wrong(name, "not_true_or_false", "must be true or false")])
    return given == ["true"]


def _read(body: bytes, model: type[State]) -> State:
    try:
        # Unlike in events, unknown fields are refused: a person's typo should show.
        return model.model_validate_json(body, extra="forbid")
    except ValidationError as error:
        raise refusal_of(error) from None


def _read_patch(body: bytes) -> dict[str, Any]:
    try:
        patch = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise problem("malformed_body", detail="The body is not valid JSON.") from None
    if not isinstance(patch, dict):
        raise problem(
            "invalid_fields", errors=[_wrong("(body)", "not_an_object", "must be an object that names what changes")]
        )
    return patch


def _wrong(field: str, code: str, what: str) -> dict[str, str]:
    return {"field": field, "code": code, "problem": what}
