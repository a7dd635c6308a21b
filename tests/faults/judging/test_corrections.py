"""The mails that a recipient may have about a petition whose target was corrected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.faults.breaking.smtp_sink import Mail
from tests.faults.catalogue.corrections import FAULTS, wrong_mails

RIGHT = "council@ferry.test"


def mail(*milestones: int, to: str = RIGHT, digest: str = "one", message_id: str | None = None) -> Mail:
    name = message_id or f"<{max(milestones)}@test>"
    return Mail(
        message_id=name,
        recipient=to,
        petition_id="ferry",
        milestones=milestones,
        at=datetime.now(UTC),
        digest=f"{name} {digest}",
        answer=250,
    )


@pytest.mark.parametrize(
    "mails", [[mail(3, 6)], [mail(3), mail(6)], [mail(3, 6), mail(3, 6)]], ids=["one letter", "two", "a copy"]
)
def test_each_milestone_in_one_mail_to_the_right_address_is_right(mails: list[Mail]) -> None:
    assert wrong_mails(mails, RIGHT) is None


@pytest.mark.parametrize(
    ("mails", "named"),
    [
        ([], "told of []"),
        ([mail(6)], "told of [6]"),
        ([mail(3, 6), mail(3)], "told of [3, 3, 6]"),
        ([mail(3, 6), mail(3, 6, digest="other")], "not the same"),
        ([mail(3, 6), mail(3, to="councli@ferry.test")], "mails to"),
    ],
)
def test_another_is_wrong(mails: list[Mail], named: str) -> None:
    assert named in str(wrong_mails(mails, RIGHT))


def test_its_faults_take_turns() -> None:
    assert all("corrections" in fault.touches for fault in FAULTS)
