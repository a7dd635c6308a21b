"""The surge: everything that the demo sends, with the expected outcomes. Pure, and deterministic for a seed.

Each signer must be counted once. Shuffled among them are repeats of signers with other spellings of their address,
submissions that break a rule, and submissions for closed or unknown petitions. Some requests are sent twice with the same
Idempotency-Key, as a browser with a bad connection would; those are one submission, not two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final, Literal

from deploy.demo.plan.invalid import INVALID, applies_to, spoiled
from deploy.demo.plan.people import Person, people, respelled, spellings_of
from deploy.demo.plan.petitions import DemoPetition, Petitions, load_petitions, scaled
from deploy.demo.plan.poison import Poison, make_poison
from deploy.demo.plan.submission import Outcome, Submission, encoded

SEED: Final = 20_261_122
REPEATS: Final = 0.08
INVALIDS: Final = 0.02
ELSEWHERE: Final = 0.01
"""Repeats, invalid submissions, and those for closed or unknown petitions, as fractions of the number of signers."""

POISON: Final = 200
SINGLES: Final = 24_000
"""Submissions that are sent as single HTTP requests; the others are lines of batches."""

FORMS: Final = 0.25
"""Fraction of the single ones that are HTML forms; half of these are sent as by a browser without JavaScript, which asks for
HTML and is redirected."""

RETRIES: Final = 0.05
"""Fraction of the single ones, and of the batches, that are sent twice."""

BATCH_LINES: Final = 500
"""Half of the limit of the batch call: shorter requests block ingest's event loop less for the single ones."""


@dataclass(frozen=True, slots=True)
class Single:
    """A submission that is sent as a single request."""

    submission: Submission
    sent_as: Literal["json", "form", "browser"]
    """As JSON, as a form by a script, or as a form by a browser without JavaScript."""
    retried: Literal["no", "after", "at once"]
    """Whether it is sent a second time: after the first was answered, or while the first is still in flight."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Submissions for one petition that share a request."""

    number: int
    petition_id: str
    lines: tuple[Submission, ...]
    retried: bool


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected outcome of the surge."""

    outcomes: Mapping[tuple[str, Outcome, str], int]
    """How many submissions, by (petition id, outcome, reason); the reason of verified ones is empty."""
    dead_letters: Mapping[str, int]
    """How many poison records, by the reason in their dead letter's header."""

    def reasons(self, outcome: Outcome) -> dict[str, int]:
        """How many submissions must end with `outcome`, by reason."""
        counts: Counter[str] = Counter()
        for (_, this, reason), number in self.outcomes.items():
            if this == outcome:
                counts[reason] += number
        return dict(sorted(counts.items()))

    def total(self, outcome: Outcome) -> int:
        """How many submissions must end with `outcome`."""
        return sum(self.reasons(outcome).values())

    @property
    def stored(self) -> int:
        """How many submissions ingest must accept: each has a row in PostgreSQL in the end."""
        return sum(number for (_, outcome, _), number in self.outcomes.items() if outcome != "refused")

    @property
    def sent(self) -> int:
        """Submissions and poison records in all."""
        return sum(self.outcomes.values()) + sum(self.dead_letters.values())


class Surge:
    """Everything that is sent, in its order.

    Args:
        scale: factor for all numbers (for tests; the percentages stay).
        seed: determines people and order, but not the outcome.
    """

    def __init__(self, *, scale: float = 1.0, seed: int = SEED) -> None:
        self.petitions: Petitions = load_petitions(scale)
        self.scale = scale
        self._random = Random(seed)  # noqa: S311  reproducible, not secret
        submissions = self._shuffled()
        self.singles, bulk = self._split(submissions)
        self.batches = self._batched(bulk)
        self.poison: list[Poison] = make_poison(self._random, self._poison_bodies(), scaled(POISON, scale, 40))
        self.expectation = Expectation(
            outcomes=Counter((item.petition_id, item.outcome, item.reason) for item in submissions),
            dead_letters=Counter(record.reason for record in self.poison),
        )

    @cached_property
    def submissions(self) -> int:
        """How many submissions go through HTTP."""
        return len(self.singles) + sum(len(batch.lines) for batch in self.batches)

    # ------------------------------------------------------------------------------------------------- what is sent

    def _shuffled(self) -> list[Submission]:
        supporters = self.petitions.supporters
        shares = _shares(round(supporters * REPEATS), [petition.supporters for petition in self.petitions.open])
        drafts: list[Submission] = []
        self._next_person = 1
        for petition, repeats in zip(self.petitions.open, shares, strict=True):
            drafts += self._signers_and_repeats(petition, repeats)
        drafts += self._invalid(round(supporters * INVALIDS))
        drafts += self._elsewhere(round(supporters * ELSEWHERE))
        self._random.shuffle(drafts)
        return drafts

    def _signers_and_repeats(self, petition: DemoPetition, repeats: int) -> Iterator[Submission]:
        signers = self._people(petition.supporters, petition.state.policy.countries)
        for signer in signers:
            yield Submission(petition.petition_id, encoded(self._random, signer), "verified")
        for _ in range(repeats):
            signer = self._random.choice(signers)
            way = self._random.choice(spellings_of(signer.email))
            again = Person(signer.name, respelled(self._random, signer.email, way), signer.country)
            yield Submission(petition.petition_id, encoded(self._random, again), "duplicate", "already_signed")

    def _invalid(self, count: int) -> Iterator[Submission]:
        """All kinds in turn, each for a petition whose policy makes it invalid."""
        for number in range(count):
            kind = INVALID[number % len(INVALID)]
            petition = self._random.choice([one for one in self.petitions.open if applies_to(kind, one)])
            person = self._people(1, petition.state.policy.countries)[0]
            body = spoiled(self._random, kind, person)
            yield Submission(petition.petition_id, body, "refused", kind.reason)

    def _elsewhere(self, count: int) -> Iterator[Submission]:
        for number in range(count):
            closed = number % 2 == 0
            petition_id = self.petitions.closed.petition_id if closed else self._random.choice(self.petitions.unknown)
            body = encoded(self._random, self._people(1, None)[0])
            yield Submission(petition_id, body, "refused", "petition_closed" if closed else "petition_unknown")

    def _people(self, count: int, countries: Sequence[str] | None) -> list[Person]:
        first = self._next_person
        self._next_person += count
        return people(self._random, first_number=first, count=count, countries=countries)

    def _poison_bodies(self) -> Iterator[tuple[str, Person]]:
        """Somebody who would be counted if a poison record were taken for a signature."""
        while True:
            petition = self._random.choice(self.petitions.open)
            yield petition.petition_id, self._people(1, petition.state.policy.countries)[0]

    # -------------------------------------------------------------------------------------------------- how it is sent

    def _split(self, submissions: list[Submission]) -> tuple[list[Single], list[Submission]]:
        """Those that go one by one, all for closed and unknown petitions among them, and the bulk."""
        existing = {petition.petition_id for petition in self.petitions.open}
        alone = [item for item in submissions if item.petition_id not in existing]
        others = [item for item in submissions if item.petition_id in existing]
        more = max(0, scaled(SINGLES, self.scale, 200) - len(alone))
        alone += others[:more]
        self._random.shuffle(alone)
        return [self._single(item) for item in alone], others[more:]

    def _single(self, submission: Submission) -> Single:
        retried: Literal["no", "after", "at once"] = "no"
        if submission.outcome != "refused" and self._random.random() < RETRIES:
            retried = self._random.choice(("after", "at once"))
        sent_as: Literal["json", "form", "browser"] = "json"
        if self._random.random() < FORMS:
            # A browser checks a form's fields before it sends them, and the page of a closed petition has no form.
            can_browse = submission.outcome != "refused" and self._random.random() < 0.5
            sent_as = "browser" if can_browse else "form"
        return Single(submission, sent_as=sent_as, retried=retried)

    def _batched(self, bulk: list[Submission]) -> list[Batch]:
        """Batches in the order in which they fill, as a partner's collector would send them."""
        filling: dict[str, list[Submission]] = {}
        full: list[list[Submission]] = []
        for submission in bulk:
            lines = filling.setdefault(submission.petition_id, [])
            lines.append(submission)
            if len(lines) == BATCH_LINES:
                full.append(filling.pop(submission.petition_id))
        full += filling.values()
        return [
            Batch(number, lines[0].petition_id, tuple(lines), retried=number % round(1 / RETRIES) == 0)
            for number, lines in enumerate(full)
        ]


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` cut into whole parts in proportion to `weights`: the largest remainders get what rounding down leaves."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
