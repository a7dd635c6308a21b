"""The surge of a run: its petitions, who signs what how often, and the expected outcome.

All of it is made from the run's seed before the first signature is sent. Retries until ingest has answered 202 do not change
it: every submission has an idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from deploy.demo.plan.people import Person, people, respelled, spellings_of

COLD_SIGNERS: Final = 50
WITHDRAWN: Final = 20
WITHDRAWN_BY_A_DUPLICATE: Final = 5
_DUPLICATES: Final = 0.08
_BLOCKED_DOMAIN: Final = "neighbourly.example"
_MOMENTS: Final = 100
"""As many milestones as a petition may have."""
_NUMBERS_PER_RUN: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class FaultPetition:
    """A petition of a run.

    Attributes:
        share: its part of the surge.
        milestones: thresholds, including some that it cannot reach, to check that these are not announced.
        targets: (target id, e-mail address) of the offices that it addresses.
        policy: its requirements for signers.
    """

    petition_id: str
    share: float
    milestones: tuple[int, ...]
    targets: tuple[tuple[str, str], ...]
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The body that creates it at ingest."""
        return {
            "organisation": {"slug": "harbour-friends", "name": "Friends of the Harbour"},
            "title": f"Keep the ferry ({self.petition_id})",
            "text": "The ferry is the shortest way across.",
            "targets": [
                {"target_id": target, "name": f"The {target.title()}", "kind": "body", "email": email}
                for target, email in self.targets
            ],
            "milestones": list(self.milestones),
            "policy": self.policy,
        }


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission: a person signs a petition. `signer` is the person's number: two spellings, one signer."""

    petition_id: str
    signer: int
    person: Person
    key: str
    """The idempotency key."""

    @property
    def body(self) -> dict[str, Any]:
        """A line of a batch, or the body of a single call."""
        return {
            "email": self.person.email,
            "name": self.person.name,
            "country": self.person.country,
            "consent": True,
            "idempotency_key": self.key,
        }


@dataclass(frozen=True, slots=True)
class Accepted:
    """A signature that ingest answered with 202."""

    petition_id: str
    signer: int


class Surge:
    """Everything that one run sends.

    Args:
        number: of the run.
        signatures: submissions of the surge; those of the idle petition are additional.
        random: decides people and order.

    Attributes:
        petitions: by id. ``-hot`` takes four fifths, ``-cold`` is signed before the faults and never again, ``-moment``
            when a fault waits for something to hit, ``-probe`` by the measurements of recovery, ``-rules`` turns many away,
            which ingest tells them.
        before: submissions to be counted before the first fault.
        submissions: the surge, in the order of sending.
        accepted: by signature id, filled while sending.
        withdrawn: signatures that were withdrawn after they counted, and the event of the command, which may name a
            duplicate of it.
    """

    def __init__(self, *, number: int, signatures: int, random: Random) -> None:
        self.prefix = f"run{number:03}-"
        self.petitions = {petition.petition_id: petition for petition in _petitions(self.prefix, signatures)}
        self._next_number = number * _NUMBERS_PER_RUN
        self._random = random
        self.before = [self._first(self.prefix + "cold", person) for person in self._people(COLD_SIGNERS)]
        self.submissions = self._shuffled(signatures)
        self.accepted: dict[str, Accepted] = {}
        self.withdrawn: dict[str, str] = {}
        self._probes = self._endless_people()

    @property
    def hot(self) -> str:
        """The hot petition."""
        return self.prefix + "hot"

    @property
    def probe(self) -> str:
        """The petition by which recovery is measured."""
        return self.prefix + "probe"

    @property
    def cold(self) -> str:
        """The petition without signatures after the faults have begun."""
        return self.prefix + "cold"

    def signatures_of(self, petition_id: str) -> dict[int, list[str]]:
        """The accepted signatures of each of a petition's signers."""
        found: dict[int, list[str]] = {}
        for signature_id, accepted in self.accepted.items():
            if accepted.petition_id == petition_id:
                found.setdefault(accepted.signer, []).append(signature_id)
        return found

    def next_probe(self) -> Submission:
        """A submission by a new signer."""
        return self._first(self.probe, next(self._probes))

    def next_moment(self) -> Submission:
        """The same, on the petition that has a milestone for each of its signatures."""
        return self._first(self.prefix + "moment", next(self._probes))

    def may_count(self, petition_id: str, person: Person) -> bool:
        """Whether ingest must accept this person's signature, and verify must count it."""
        policy = self.petitions[petition_id].policy
        return person.email.rpartition("@")[2].lower() not in policy.get("blocked_email_domains", ())

    def _people(self, count: int) -> list[Person]:
        made = people(self._random, first_number=self._next_number, count=count, countries=None)
        self._next_number += count
        return made

    def _endless_people(self) -> Iterator[Person]:
        while True:
            yield from self._people(10)

    def _first(self, petition_id: str, person: Person) -> Submission:
        signer = int("".join(filter(str.isdigit, person.email.partition("@")[0])))
        return Submission(petition_id, signer, person, f"{petition_id}-{signer}")

    def _shuffled(self, signatures: int) -> list[Submission]:
        made: list[Submission] = []
        for petition in self.petitions.values():
            wanted = round(signatures * petition.share)
            again = round(wanted * _DUPLICATES)
            first = [self._first(petition.petition_id, person) for person in self._people(wanted - again)]
            made += first
            made += [self._again(self._random.choice(first), place) for place in range(again if first else 0)]
        self._random.shuffle(made)
        return made

    def _again(self, first: Submission, place: int) -> Submission:
        """A second submission of the same person, perhaps in another spelling: a duplicate."""
        person = first.person
        if self._random.random() < 0.7:
            way = self._random.choice(spellings_of(person.email))
            person = Person(person.name, respelled(self._random, person.email, way), person.country)
        return Submission(first.petition_id, first.signer, person, f"{first.key}-again-{place}")


def _petitions(prefix: str, signatures: int) -> list[FaultPetition]:
    def targets(petition: str, *offices: str) -> tuple[tuple[str, str], ...]:
        return tuple((office, f"{office}@{prefix}{petition}.test") for office in offices)

    # Many, so that every moment of the surge is close to one; the last one cannot be reached.
    hot = tuple(sorted({10, *(signatures * step // 40 for step in range(1, 28)), 100 * signatures}))
    return [
        FaultPetition(prefix + "hot", 0.80, hot, targets("hot", "council", "port-authority")),
        FaultPetition(prefix + "side", 0.12, (10, signatures // 20), targets("side", "council")),
        FaultPetition(
            prefix + "rules",
            0.08,
            (10, signatures // 100),
            targets("rules", "council"),
            {"blocked_email_domains": [_BLOCKED_DOMAIN]},
        ),
        FaultPetition(prefix + "cold", 0.0, (COLD_SIGNERS // 2,), targets("cold", "council")),
        FaultPetition(prefix + "moment", 0.0, tuple(range(1, _MOMENTS + 1)), targets("moment", "council")),
        FaultPetition(prefix + "probe", 0.0, (), targets("probe", "council")),
    ]
