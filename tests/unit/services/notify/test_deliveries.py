"""Who gets a mail about what, what joins it, and what a server's answer means."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.deliveries import Claim, deliveries_for, delivery_id, message_id, one_line, shorten
from services.notify.mail.replies import Reply, Stage, Verdict, verdict
from services.notify.outbox.rules import Open, RetryRule, fold
from shared.contract.events import MilestoneReached, Organisation, PetitionChanged, Target

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def petition(**changes: object) -> PetitionChanged:
    values: dict[str, object] = {
        "petition_id": "night-ferry",
        "organisation": Organisation(slug="harbour-friends", name="Friends of the Harbour"),
        "title": "Keep the night ferry",
        "text": "It brings people home.",
        "targets": [
            Target(target_id="council", name="The Harbour Council", kind="body", email="council@harbour.example"),
            Target(target_id="master", name="The Harbour Master", email="master@harbour.example"),
        ],
        "milestones": [1000, 2500],
        "changed_at": NOON,
    }
    return PetitionChanged.model_validate({**values, **changes})


def milestone(threshold: int = 1000, count: int = 1003) -> MilestoneReached:
    return MilestoneReached(
        petition_id="night-ferry", threshold=threshold, count=count, revision=count, reached_at=NOON
    )


def test_each_target_of_the_petition_gets_a_delivery() -> None:
    deliveries = deliveries_for(milestone(), petition())

    assert [(delivery.target_id, delivery.email) for delivery in deliveries] == [
        ("council", "council@harbour.example"),
        ("master", "master@harbour.example"),
    ]
    assert {(delivery.threshold, delivery.count) for delivery in deliveries} == {(1000, 1003)}


def test_a_delivery_has_the_same_id_whenever_it_is_made() -> None:
    again = [delivery.delivery_id for delivery in deliveries_for(milestone(), petition())]

    assert [delivery.delivery_id for delivery in deliveries_for(milestone(), petition())] == again
    # A fixed value: another one would give mails in progress a second Message-ID.
    assert delivery_id("night-ferry", 1000, "council") == UUID("2796fb4d-cb07-573d-856b-aef690eb70a1")


slug = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)
key = st.tuples(slug, st.integers(1, 10**10), slug)


@settings(deadline=None)
@given(key, key)
def test_two_deliveries_never_share_an_id(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    assert (delivery_id(*one) == delivery_id(*other)) == (one == other)


def test_the_message_id_is_the_delivery_at_the_senders_domain() -> None:
    known = UUID("2796fb4d-cb07-573d-856b-aef690eb70a1")

    assert message_id(known, "example.org") == "<2796fb4d-cb07-573d-856b-aef690eb70a1@example.org>"


def test_line_breaks_in_a_petitions_words_never_reach_a_delivery() -> None:
    made = deliveries_for(
        milestone(),
        petition(
            title="Keep it\r\nBcc: all@harbour.example",
            organisation=Organisation(slug="harbour-friends", name="\x00\x1b"),
        ),
    )[0]

    assert made.petition_title == "Keep it Bcc: all@harbour.example"
    assert made.organisation_name == "harbour-friends", "a name of nothing but control characters is none"


@settings(deadline=None)
@given(st.text())
def test_one_line_has_nothing_that_ends_a_line_or_turns_it_around(text: str) -> None:
    line = one_line(text)

    assert len(line.splitlines()) <= 1
    assert not set(line) & set("\x00\x1b\u202e\u2066\u2028")
    assert one_line(line) == line


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), st.integers(1, 50))
def test_a_shortened_title_is_never_longer_than_asked(text: str, length: int) -> None:
    short = shorten(text, length)

    assert len(short) <= length
    assert short == text or short.endswith("…")


# ------------------------------------------------------------------------------------------------- one mail, not a burst

opens = st.lists(
    st.builds(
        lambda petition_id, target_id, threshold: Open(
            delivery_id(petition_id, threshold, target_id), petition_id, target_id, threshold
        ),
        st.sampled_from(["ferry", "park"]),
        st.sampled_from(["council", "master"]),
        st.integers(1, 20),
    ),
    unique_by=lambda item: item.delivery_id,
)


@settings(deadline=None)
@given(opens)
def test_every_milestone_of_a_surge_is_in_exactly_one_mail_which_is_about_the_highest(collected: list[Open]) -> None:
    mails = fold(collected)

    by_id = {item.delivery_id: item for item in collected}
    named = [*mails, *(other for others in mails.values() for other in others)]
    assert sorted(named) == sorted(by_id), "each once, none forgotten"
    pairs = [(by_id[mail].petition_id, by_id[mail].target_id) for mail in mails]
    assert len(pairs) == len(set(pairs)), "one mail per petition and target"
    for mail, others in mails.items():
        for other in others:
            assert by_id[other].threshold < by_id[mail].threshold
            assert (by_id[other].petition_id, by_id[other].target_id) == (
                by_id[mail].petition_id,
                by_id[mail].target_id,
            )


def test_a_mail_names_its_milestones_from_low_to_high() -> None:
    highest = deliveries_for(milestone(5000), petition())[0]
    claim = Claim(
        delivery=highest, folded=(2500, 1000), chosen_at=NOON, attempts=0, deferred_for=timedelta(), taken_over=False
    )

    assert claim.milestones == [1000, 2500, 5000]


# --------------------------------------------------------------------------------------------------- what an answer means


@pytest.mark.parametrize(
    ("stage", "code", "expected"),
    [
        (Stage.CONTENT, 250, Verdict.SENT),
        (Stage.RECIPIENT, 451, Verdict.DEFERRED),
        (Stage.RECIPIENT, 450, Verdict.DEFERRED),
        (Stage.CONTENT, 452, Verdict.DEFERRED),
        (Stage.SENDER, 421, Verdict.DEFERRED),
        (Stage.CONTENT, -1, Verdict.DEFERRED),
        (Stage.RECIPIENT, 550, Verdict.REFUSED),
        (Stage.CONTENT, 554, Verdict.REFUSED),
        (Stage.SENDER, 553, Verdict.NOT_OURS),
        (Stage.RECIPIENT, 530, Verdict.NOT_OURS),
        (Stage.SENDER, 530, Verdict.NOT_OURS),
    ],
)
def test_a_reply_is_read_by_its_first_digit_unless_it_is_about_us(stage: Stage, code: int, expected: Verdict) -> None:
    assert verdict(Reply(stage, code, "words")) is expected


def test_a_refused_recipient_reads_as_the_server_put_it() -> None:
    assert str(Reply(Stage.RECIPIENT, 550, "5.1.1 no such mailbox")) == "550 5.1.1 no such mailbox (RCPT TO)"


RULE = RetryRule(first=timedelta(minutes=1), most=timedelta(hours=1), give_up_after=timedelta(days=5))


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_retry_waits_between_half_the_first_wait_and_the_longest(attempts: int, jitter: float) -> None:
    assert timedelta(seconds=30) <= RULE.delay(attempts, jitter) <= timedelta(hours=1)


def test_waits_double_up_to_the_longest() -> None:
    assert [RULE.delay(attempts, jitter=1.0) for attempts in (1, 2, 3, 7, 8)] == [
        timedelta(minutes=minutes) for minutes in (1, 2, 4, 60, 60)
    ]


def test_a_mail_is_given_up_only_after_the_whole_time() -> None:
    assert not RULE.gives_up(timedelta(days=4, hours=23))
    assert RULE.gives_up(timedelta(days=5))
