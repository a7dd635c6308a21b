"""Views of the API and the pages: pure functions from a petition and its tally to bodies and texts. No I/O, no clock."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.contract.catalogue import Admission, admission_at
from shared.contract.countries import COUNTRIES
from shared.contract.events import PetitionChanged, TallyUpdated, Target, TargetKind

EXCERPT_LETTERS: Final = 220
"""About three lines on a phone: enough to know what a petition is about, short enough to see the next one."""

# ------------------------------------------------------------------------------------------------------- JSON bodies


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class MilestoneBody(_Body):
    """One threshold of a petition."""

    threshold: int
    reached: bool = Field(description="Whether the count is at or above the threshold now.")


class TallyBody(_Body):
    """The live count of a petition."""

    petition_id: str
    title: str
    language: str | None = Field(description="The language of the petition's texts (BCP 47); null: not known.")
    count: int = Field(description="Signatures that stand.")
    revision: int = Field(description="Rises by one with every change of the count, also when it falls.")
    epoch: int = Field(
        description="0, or when a higher revision was taken back (milliseconds since 1970): of two answers, the one with"
        " the higher epoch is newer, and within an epoch the one with the higher revision."
    )
    countries: dict[str, int] = Field(description="Standing signatures by country (ISO 3166-1 alpha-2).")
    minutes: dict[str, int] = Field(
        description="Standing signatures by the minute they were submitted (UTC, `2026-11-22T10:42Z`): the newest 60"
        " minutes that have any."
    )
    earlier: int = Field(description="Standing signatures submitted before those minutes.")
    updated_at: AwareDatetime = Field(
        description="When the count became this one; without a change of it yet, when the petition was last changed."
    )
    stale: bool = Field(
        description="Whether the live count could not be read: this is the newest that is known, of `updated_at`."
    )
    next_milestone: int | None = Field(description="The lowest threshold above the count; null when there is none.")
    milestones: list[MilestoneBody]


class TargetBody(_Body):
    """A target of a petition. Without the e-mail address: mail goes through Groundswell."""

    name: str
    kind: TargetKind


class OrganisationPetitionBody(_Body):
    """One petition of an organisation."""

    petition_id: str
    title: str
    targets: list[TargetBody]
    language: str | None = Field(description="The language of its texts (BCP 47); null: not known.")
    excerpt: str = Field(description=f"The beginning of the text, at most {EXCERPT_LETTERS} letters.")
    count: int | None = Field(description="null while it cannot be read (`stale`) and none is known.")
    url: str = Field(description="Path of the petition's page on this host.")
    open: bool = Field(description="Whether it takes signatures now.")


class OrganisationBody(_Body):
    """An organisation, its petitions by their count, and the sum of their supporters."""

    slug: str
    name: str
    supporters: int | None = Field(
        description="The sum of the petitions' counts, as far as they are known; null when none is."
    )
    stale: bool = Field(description="Whether live counts could not be read: they are the newest that are known.")
    petitions_started: int
    petitions: list[OrganisationPetitionBody]


def next_milestone(count: int, thresholds: Sequence[int]) -> int | None:
    """The lowest threshold above `count`, or None when all are passed."""
    return next((threshold for threshold in sorted(thresholds) if threshold > count), None)


def tally_body(petition: PetitionChanged, tally: TallyUpdated, *, stale: bool = False) -> TallyBody:
    """The answer of ``GET /v1/petitions/{petition_id}/tally``; `stale`: the tally is the newest known, not Redis' present one."""
    return TallyBody(
        petition_id=petition.petition_id,
        title=petition.title,
        language=petition.language,
        count=tally.count,
        revision=tally.revision,
        epoch=tally.epoch,
        countries=tally.countries,
        minutes=tally.minutes,
        earlier=tally.earlier,
        updated_at=tally.updated_at,
        stale=stale,
        next_milestone=next_milestone(tally.count, petition.milestones),
        milestones=[
            MilestoneBody(threshold=threshold, reached=tally.count >= threshold) for threshold in petition.milestones
        ],
    )


def newest_of(petitions: Sequence[PetitionChanged]) -> PetitionChanged:
    """The petition that was changed last. An organisation has no state of its own, so this petition has its newest name."""
    return max(petitions, key=lambda petition: petition.changed_at)


def organisation_body(
    petitions: Sequence[PetitionChanged],
    tallies: Mapping[str, TallyUpdated],
    moment: datetime,
    *,
    stale: Collection[str] = (),
) -> OrganisationBody:
    """The answer of ``GET /v1/organisations/{slug}``.

    Args:
        petitions: All petitions of one organisation, at least one.
        tallies: Their tallies by petition id, as far as they are known.
        moment: For "open now".
        stale: The petitions whose tallies could not be read: they are the newest that are known.
    """
    organisation = newest_of(petitions).organisation
    counts = {petition_id: tally.count for petition_id, tally in tallies.items()}
    ordered = sorted(petitions, key=lambda petition: (-counts.get(petition.petition_id, -1), petition.title))
    return OrganisationBody(
        slug=organisation.slug,
        name=organisation.name,
        supporters=sum(counts.values()) if counts else None,
        stale=bool(stale),
        petitions_started=len(petitions),
        petitions=[
            OrganisationPetitionBody(
                petition_id=petition.petition_id,
                title=petition.title,
                targets=[TargetBody(name=target.name, kind=target.kind) for target in petition.targets],
                language=petition.language,
                excerpt=excerpt(petition.text),
                count=counts.get(petition.petition_id),
                url=f"/p/{petition.petition_id}",
                open=admission_at(petition, moment) is Admission.OPEN,
            )
            for petition in ordered
        ],
    )


# ------------------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """A petition on an organisation's page: what the API's body does not have."""

    addressed_to: list[tuple[str, str]]
    """The result of `addressed_to`."""
    badge: str | None
    """Why the petition takes no signatures now; None if it does."""


def card_view(petition: PetitionChanged, moment: datetime) -> CardView:
    """The view of `petition` on ``/o/{slug}`` at `moment`."""
    badge = None
    match admission_at(petition, moment):
        case Admission.CLOSED:
            badge = "Closed"
        case Admission.NOT_YET_OPEN:
            assert petition.opens_at is not None
            badge = f"Opens on {day_text(petition.opens_at)}"
        case Admission.PAUSED:
            badge = "Paused"
    return CardView(addressed_to=addressed_to(petition.targets), badge=badge)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A petition's progress towards a milestone."""

    threshold: int
    to_go: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PetitionView:
    """The view of a petition's page."""

    petition_id: str
    title: str
    organisation: str
    organisation_url: str
    addressed_to: list[tuple[str, str]]
    """The result of `addressed_to`."""
    paragraphs: list[str]
    excerpt: str
    language: str
    """The language of the petition's texts; empty: not known."""
    count: int | None
    """None while it cannot be read and no earlier one is known."""
    as_of: str | None
    """The time of a count that may have changed since and cannot be read; else None."""
    milestones: list[int]
    progress: Progress | None
    """None if there is no milestone above the count, or no count."""
    admission: Literal["open", "not_yet_open", "closed", "paused"]
    paused: str | None
    """The text in place of the form while the petition is paused."""
    opens_at: datetime | None
    closes_at: datetime | None
    countries: list[tuple[str, str]]
    """``(code, name)`` to choose from."""
    restricted: bool
    """Whether only signers of these countries count."""
    require_consent: bool
    confirmation_required: bool


def petition_view(
    petition: PetitionChanged, tally: TallyUpdated | None, moment: datetime, *, stale: bool = False
) -> PetitionView:
    """The view of ``/p/{petition_id}`` at `moment`; `stale`: the tally is not Redis' present one, but the newest known."""
    count = None if tally is None else tally.count
    threshold = None if count is None else next_milestone(count, petition.milestones)
    policy = petition.policy
    return PetitionView(
        petition_id=petition.petition_id,
        title=petition.title,
        organisation=petition.organisation.name,
        organisation_url=f"/o/{petition.organisation.slug}",
        addressed_to=addressed_to(petition.targets),
        paragraphs=paragraphs(petition.text),
        excerpt=excerpt(petition.text),
        language=petition.language or "",
        count=count,
        as_of=as_of_text(tally.updated_at, moment) if tally is not None and stale else None,
        milestones=petition.milestones,
        progress=Progress(threshold=threshold, to_go=threshold - count) if threshold and count is not None else None,
        admission=admission_at(petition, moment).value,
        paused=None if petition.paused is None else petition.paused.sentence,
        opens_at=petition.opens_at,
        closes_at=petition.closes_at,
        countries=country_choices(policy.countries),
        restricted=policy.countries is not None,
        require_consent=policy.require_consent,
        confirmation_required=policy.confirmation == "required",
    )


# ------------------------------------------------------------------------------------------------------------- texts


def grouped(number: int) -> str:
    """The exact number for a reader: ``111,236``."""
    return f"{number:,}"


def counted(number: int | None, one: str, many: str) -> str:
    """The word that goes with `number`: `one` or `many`; without a number, `many`."""
    return one if number == 1 else many


def paragraphs(text: str) -> list[str]:
    """The text's paragraphs, which blank lines separate. Single line breaks are kept."""
    found: list[str] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line.strip())
        elif lines:
            found.append("\n".join(lines))
            lines = []
    return found


def excerpt(text: str, limit: int = EXCERPT_LETTERS) -> str:
    """The beginning of a text in one line of at most `limit` characters, with an ellipsis if a paragraph was cut after a word.

    It is the first paragraph, and as many more as are needed for half of `limit`.
    """
    line = ""
    for paragraph in paragraphs(text):
        line = f"{line} {' '.join(paragraph.split())}".strip()
        if len(line) >= limit / 2:
            break
    if len(line) <= limit:
        return line
    start = line[: limit - 1]
    # The next character shows whether the cut is at the end of a word; a text without spaces (Chinese, Thai) is cut anywhere.
    whole = start if line[limit - 1] == " " else start.rpartition(" ")[0]
    return (whole or start).rstrip(" .,;:!?–-") + "…"


def addressed_to(targets: Sequence[Target]) -> list[tuple[str, str]]:
    """The targets' names as a list in a sentence, each with the words before it.

    ``The Harbour Council and the Minister for Rivers`` is ``[("", "The Harbour Council"), (" and ", "the Minister …")]``:
    a name may have another language and direction of writing than the words between the names.
    """
    last = len(targets) - 1
    return [
        ("" if place == 0 else " and " if place == last else ", ", target.name) for place, target in enumerate(targets)
    ]


def isolated(text: str) -> str:
    """`text` for a place without markup, such as a title: right-to-left text is isolated, so that it and the words around
    it keep their order (Unicode Standard Annex #9: FSI and PDI)."""
    if any(unicodedata.bidirectional(letter) in {"R", "AL"} for letter in text):
        return f"\u2068{text}\u2069"
    return text


def as_of_text(moment: datetime, now: datetime) -> str:
    """The time of a number: ``14:03 UTC``, with its day if that is not the day of `now`."""
    utc = moment.astimezone(UTC)
    return f"{utc:%H:%M} UTC" if utc.date() == now.astimezone(UTC).date() else moment_text(moment)


def day_text(moment: datetime) -> str:
    """A moment's day in UTC for a reader: ``3 March 2027``."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}"


def moment_text(moment: datetime) -> str:
    """A moment for a reader: ``3 March 2027, 12:00 UTC``."""
    return f"{day_text(moment)}, {moment.astimezone(UTC):%H:%M} UTC"


# strftime's %B follows the process's locale; the page is English wherever it is rendered.
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def country_choices(allowed: Sequence[str] | None) -> list[tuple[str, str]]:
    """``(code, name)`` of the countries to choose from, in the order an English reader expects.

    Args:
        allowed: The petition's own list; None when all countries count. Codes that do not exist are left out.
    """
    return [choice for choice in _CHOICES if allowed is None or choice[0] in allowed]


def _without_accents(name: str) -> str:
    """A name as a sort key, so that Åland comes under A and not after Zimbabwe."""
    return "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter)).lower()


_CHOICES: Final = sorted(COUNTRIES.items(), key=lambda choice: _without_accents(choice[1]))
