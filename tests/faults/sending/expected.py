"""The expected outcome of a run, from what was sent. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tests.faults.sending.surge import Accepted, Surge

Signer = tuple[str, int]
"""A petition and the number of a person: at most one signature of each counts."""


@dataclass(frozen=True, slots=True)
class SentPetition:
    """A petition of the run."""

    milestones: tuple[int, ...] = ()
    targets: tuple[tuple[str, str], ...] = ()
    """(target id, e-mail address)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent, and the faults meanwhile.

    Attributes:
        petitions: by id.
        accepted: every signature that was answered 202, by its id.
        turned_away: signers whom the petition's policy excludes; ingest refuses all of them.
        withdrawn: by id of the withdrawn signature, the event of the command that withdrew it.
        kinds: of the faults of the run.
        touches: what these affected.
    """

    petitions: Mapping[str, SentPetition]
    accepted: Mapping[str, Accepted]
    turned_away: frozenset[Signer] = frozenset()
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    kinds: Collection[str] = ()
    touches: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(
        cls,
        surge: Surge,
        direct: Mapping[str, Accepted],
        *,
        kinds: Collection[str] = (),
        touches: frozenset[str] = frozenset(),
    ) -> Sent:
        """Everything that `surge` sent, and the signatures that faults wrote to the topic themselves."""
        return cls(
            petitions={
                name: SentPetition(petition.milestones, petition.targets) for name, petition in surge.petitions.items()
            },
            accepted={**surge.accepted, **direct},
            turned_away=frozenset(
                (submission.petition_id, submission.signer)
                for submission in (*surge.before, *surge.submissions)
                if not surge.may_count(submission.petition_id, submission.person)
            ),
            withdrawn=dict(surge.withdrawn),
            kinds=kinds,
            touches=touches,
        )

    def signatures_of_signers(self) -> dict[Signer, list[str]]:
        """The signatures of each signer that may count."""
        found: defaultdict[Signer, list[str]] = defaultdict(list)
        for signature_id, accepted in self.accepted.items():
            signer = (accepted.petition_id, accepted.signer)
            if signer not in self.turned_away:
                found[signer].append(signature_id)
        return dict(found)

    def touched(self, *parts: str) -> bool:
        """Whether a fault of the run affected any of these."""
        return not self.touches.isdisjoint(parts)
