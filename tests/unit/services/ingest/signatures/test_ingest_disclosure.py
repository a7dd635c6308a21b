"""What a status reveals, and to whom."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from services.ingest.signatures.disclosure import without_duplicates, without_erasures
from services.ingest.web.schemas import SignatureStatus
from tests.unit.services.ingest.signing.test_ingest_admission import petition

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def status(state: str, reason: str | None = None) -> SignatureStatus:
    return SignatureStatus(signature_id=uuid4(), petition_id="p", status=state, reason=reason, decided_at=NOW)


@pytest.mark.parametrize(("confirmation", "shown"), [("none", "verified"), ("required", "pending")])
def test_to_strangers_a_duplicate_reads_as_a_first_signature_would(confirmation, shown):
    seen = without_duplicates(status("duplicate", "already_signed"), petition(policy={"confirmation": confirmation}))
    assert (seen.status, seen.reason) == (shown, None)


def test_a_duplicate_of_a_petition_that_is_gone_is_no_clue_either():
    assert without_duplicates(status("duplicate"), None).status == "verified"


@pytest.mark.parametrize("state", ["verified", "pending", "rejected", "withdrawn", "invalidated"])
def test_everything_else_is_told_as_it_is(state):
    one = status(state, "country_unknown" if state == "rejected" else None)
    assert without_duplicates(one, petition()) is one


def test_to_strangers_an_erased_signature_reads_as_before():
    one = status("verified")
    assert without_erasures(one) is one
    assert without_erasures(one.model_copy(update={"erased_at": NOW})) == one
