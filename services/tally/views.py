"""What the API and the pages show: pure functions from a petition and its tally to bodies and texts. No I/O, no clock."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.tally.counting import next_milestone
from shared.catalogue import Admission, admission_at
from shared.countries import COUNTRIES
from shared.events import PetitionChanged, TallyUpdated, Target

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
    updated_at: AwareDatetime
    next_milestone: int | None = Field(description="The lowest threshold above the count; null when there is none.")
    milestones: list[MilestoneBody]


class TargetBody(_Body):
    """Whom a petition addresses. Without the e-mail address: mail goes through Groundswell."""

    name: str
    kind: Literal["person", "body"]


class OrganisationPetitionBody(_Body):
    """One petition of an organisation."""

    petition_id: str
    title: str
    targets: list[TargetBody]
    excerpt: str = Field(description=f"The beginning of the text, at most {EXCERPT_LETTERS} letters.")
    count: int
    url: str = Field(description="Path of the petition's page on this host.")
    open: bool = Field(description="Whether it takes signatures now.")


class OrganisationBody(_Body):
    """An organisation, its petitions by their count, and the sum of their supporters."""

    slug: str
    name: str
    supporters: int = Field(description="The sum of the petitions' counts.")
    petitions_started: int
    petitions: list[OrganisationPetitionBody]


def tally_body(petition: PetitionChanged, tally: TallyUpdated) -> TallyBody:
    """The answer of ``GET /v1/petitions/{petition_id}/tally``."""
    return TallyBody(
        petition_id=petition.petition_id,
        title=petition.title,
        count=tally.count,
        revision=tally.revision,
        epoch=tally.epoch,
        countries=tally.countries,
        minutes=tally.minutes,
        earlier=tally.earlier,
        updated_at=tally.updated_at,
        next_milestone=next_milestone(tally.count, petition.milestones),
        milestones=[
            MilestoneBody(threshold=threshold, reached=tally.count >= threshold) for threshold in petition.milestones
        ],
    )


def organisation_body(
    petitions: Sequence[PetitionChanged], tallies: Mapping[str, TallyUpdated], moment: datetime
) -> OrganisationBody:
    """The answer of ``GET /v1/organisations/{slug}``.

    Args:
        petitions: All petitions of one organisation, at least one.
        tallies: Their tallies by petition id.
        moment: For "open now".
    """
    # An organisation has no state of its own; its newest petition has its newest name.
    organisation = max(petitions, key=lambda petition: petition.changed_at).organisation
    ordered = sorted(petitions, key=lambda petition: (-tallies[petition.petition_id].count, petition.title))
    return OrganisationBody(
        slug=organisation.slug,
        name=organisation.name,
        supporters=sum(tallies[petition.petition_id].count for petition in petitions),
        petitions_started=len(petitions),
        petitions=[
            OrganisationPetitionBody(
                petition_id=petition.petition_id,
                title=petition.title,
                targets=[TargetBody(name=target.name, kind=target.kind) for target in petition.targets],
                excerpt=excerpt(petition.text),
                count=tallies[petition.petition_id].count,
                url=f"/p/{petition.petition_id}",
                open=admission_at(petition, moment) is Admission.OPEN,
            )
            for petition in ordered
        ],
    )


# ------------------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """What an organisation's page says of a petition beyond the API's body."""

    addressed_to: str
    badge: str | None
    """Why it takes no signatures now; None when it does."""


def card_view(petition: PetitionChanged, moment: datetime) -> CardView:
    """What ``/o/{slug}`` shows of `petition` at `moment`."""
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
    """How far a petition is on its way to a milestone."""

    threshold: int
    to_go: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PetitionView:
    """What the page of one petition shows."""

    petition_id: str
    title: str
    organisation: str
    organisation_url: str
    addressed_to: str
    paragraphs: list[str]
    excerpt: str
    count: int
    milestones: list[int]
    progress: Progress | None
    """None when no milestone is left above the count."""
    admission: Literal["open", "not_yet_open", "closed", "paused"]
    paused: str | None
    """What visitors read in place of the form, while it is paused."""
    opens_at: datetime | None
    closes_at: datetime | None
    countries: list[tuple[str, str]]
    """``(code, name)`` to choose from."""
    restricted: bool
    """Whether only signers of these countries count."""
    require_consent: bool
    confirmation_required: bool


def petition_view(petition: PetitionChanged, tally: TallyUpdated, moment: datetime) -> PetitionView:
    """What ``/p/{petition_id}`` shows at `moment`."""
    threshold = next_milestone(tally.count, petition.milestones)
    policy = petition.policy
    return PetitionView(
        petition_id=petition.petition_id,
        title=petition.title,
        organisation=petition.organisation.name,
        organisation_url=f"/o/{petition.organisation.slug}",
        addressed_to=addressed_to(petition.targets),
        paragraphs=paragraphs(petition.text),
        excerpt=excerpt(petition.text),
        count=tally.count,
        milestones=petition.milestones,
        progress=None if threshold is None else Progress(threshold=threshold, to_go=threshold - tally.count),
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


def counted(number: int, one: str, many: str) -> str:
    """The word that goes with `number`."""
    return one if number == 1 else many


def paragraphs(text: str) -> list[str]:
    """The text's paragraphs: what blank lines separate. Single line breaks stay inside."""
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
    """The beginning of a text in one line, cut after a whole word, with an ellipsis when a paragraph was cut.

    It is the first paragraph, and as many more as it takes to say something (half of `limit`).
    """
    line = ""
    for paragraph in paragraphs(text):
        line = f"{line} {' '.join(paragraph.split())}".strip()
        if len(line) >= limit / 2:
            break
    if len(line) <= limit:
        return line
    start = line[: limit - 1]
    # One letter more tells whether the cut fell behind a word; a text without spaces (Chinese, Thai) is cut anywhere.
    whole = start if line[limit - 1] == " " else start.rpartition(" ")[0]
    return (whole or start).rstrip(" .,;:!?–-") + "…"


def addressed_to(targets: Sequence[Target]) -> str:
    """The targets' names as a list in a sentence: ``The Harbour Council and the Minister for Rivers``."""
    *others, last = [target.name for target in targets]
    return f"{', '.join(others)} and {last}" if others else last


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
    """So that Åland stands under A and not after Zimbabwe."""
    return "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter)).lower()


_CHOICES: Final = sorted(COUNTRIES.items(), key=lambda choice: _without_accents(choice[1]))
