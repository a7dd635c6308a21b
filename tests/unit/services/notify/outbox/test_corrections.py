"""The effect of a petition's present state on failed deliveries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.notify.mail.refusals import Cause
from services.notify.outbox.failures import Because, Failed, correction_of
from shared.contract.events import Organisation, PetitionChanged, Target

WRONG, RIGHT = "post@harbor.example", "post@harbour.example"


def failed(cause: Cause = Cause.ADDRESS, email: str = WRONG) -> Failed:
    return Failed("night-ferry", "council", email, cause, ("The Harbour Council",))


def petition(*targets: tuple[str, str, str]) -> PetitionChanged:
    return PetitionChanged(
        petition_id="night-ferry",
        organisation=Organisation(slug="harbour-friends", name="Friends of the Harbour"),
        title="Keep the night ferry",
        text="It brings people home.",
        targets=[Target(target_id=id_, name=name, email=email) for id_, name, email in targets],
        changed_at=datetime.now(UTC),
    )


def because(failed: Failed, *targets: tuple[str, str, str]) -> tuple[str, Because] | None:
    found = correction_of(failed, petition(*targets))
    return None if found is None else (found.target.target_id, found.because)


def test_another_address_of_the_same_target_is_a_correction() -> None:
    assert because(failed(), ("council", "The Harbour Council", RIGHT)) == ("council", Because.ADDRESS)


@pytest.mark.parametrize("email", [f"{RIGHT} ", f"{RIGHT}\N{NO-BREAK SPACE}", f" {RIGHT}"])
def test_an_address_without_its_blanks_is_another_one(email: str) -> None:
    assert because(failed(email=email), ("council", "The Harbour Council", RIGHT)) == ("council", Because.ADDRESS)


def test_another_name_alone_is_none() -> None:
    assert because(failed(), ("council", "The Council of the Harbour", WRONG)) is None


def test_another_targets_new_address_is_none() -> None:
    assert because(failed(), ("council", "The Harbour Council", WRONG), ("master", "The Harbour Master", RIGHT)) is None


def test_a_target_that_is_addressed_again_gets_what_was_withheld_meanwhile() -> None:
    assert because(failed(Cause.TARGET), ("council", "The Harbour Council", WRONG)) == ("council", Because.TARGET)


def test_a_target_under_another_id_is_known_by_its_name() -> None:
    for cause in (Cause.ADDRESS, Cause.TARGET):
        assert because(failed(cause), ("harbour", "the harbour  council", RIGHT)) == ("harbour", Because.TARGET)


def test_a_target_under_another_id_and_name_is_known_by_its_address_if_that_was_right() -> None:
    assert because(failed(Cause.TARGET, RIGHT), ("harbour", "The Council", RIGHT)) == ("harbour", Because.TARGET)
    assert because(failed(Cause.ADDRESS, WRONG), ("harbour", "The Council", WRONG)) is None


def test_a_target_under_another_id_with_the_address_that_failed_is_not_corrected() -> None:
    assert because(failed(), ("harbour", "The Harbour Council", WRONG)) is None


def test_of_two_that_it_may_be_it_is_neither() -> None:
    assert (
        because(failed(), ("harbour", "The Harbour Council", RIGHT), ("port", "The Harbour Council", "port@x.example"))
        is None
    )


def test_a_target_that_is_gone_has_no_correction() -> None:
    assert because(failed(), ("master", "The Harbour Master", "master@harbour.example")) is None
