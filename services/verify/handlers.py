"""A batch through verify: decode → decide → store → publish. The consumer commits when `process` returns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from aiokafka import ConsumerRecord

from services.verify.deciding.outcome import Decided, Mismatch
from services.verify.deciding.rules import NEEDS_NO_PETITION, Judgement, SubmittedCommand, is_sign, judge
from services.verify.metrics import VerifyMetrics
from services.verify.publishing.records import fact_record, rejection_record
from services.verify.store import LaneTaken, VerifyStore
from shared.contract.bounds import COMMAND_AHEAD, in_utc, latest_time
from shared.contract.catalogue import Catalogue
from shared.contract.events import (
    ChangeCommand,
    Command,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    SignCommand,
    WithdrawCommand,
)
from shared.contract.identity import InvalidEmail, canonical_domain, canonical_email, command_id, signer_key
from shared.contract.mailboxes.providers import LATEST, NEWEST_FIRST
from shared.contract.states import SignatureState
from shared.contract.topics import SIGNATURES_REJECTED, SIGNATURES_VERIFIED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.decode import by_type, read_event
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import InvalidRecord

log = structlog.get_logger(__name__)

_COMMANDS: Final[dict[str, Callable[[bytes], Command]]] = by_type(
    SignCommand, ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand
)


class VerifyHandler:
    """Turns commands into decisions and facts."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        feed: CatalogueFeed,
        store: VerifyStore,
        producer: EventProducer,
        metrics: VerifyMetrics,
        pepper: bytes,
    ) -> None:
        self._catalogue, self._feed = catalogue, feed
        self._store, self._producer, self._metrics = store, producer, metrics
        self._pepper = pepper

    def decode(self, record: ConsumerRecord[Any, Any]) -> SubmittedCommand:
        """Read one record of ``signatures.submitted``.

        Raises:
            InvalidRecord: it is not a valid command of a known type and version. The message never holds the content.
        """
        event_id, command = read_event(record, _COMMANDS)
        # Converted to UTC once: comparing or storing a time in another zone would convert it each time.
        moment = in_utc(_moment(command), latest_time(record.timestamp, record.timestamp_type, COMMAND_AHEAD))
        if moment is None:
            raise InvalidRecord("out_of_range", "a command is of the year 2000 or later, and a day ahead at most")
        place = record.partition, record.offset
        if not isinstance(command, SignCommand):
            return SubmittedCommand(_change_id(command, event_id), _key(record.key), *place, moment, command)
        if event_id != str(command.signature_id):
            raise InvalidRecord("event_id", "header ce_id of a sign command must be its signature_id, in lower case")
        key, domain = self._signer(command, record.key)
        return SubmittedCommand(command.signature_id, key, *place, moment, command, domain)

    def _signer(self, command: SignCommand, record_key: bytes | None) -> tuple[UUID, str]:
        """Signer key and e-mail domain of a sign command.

        ingest makes the key by the petition's version of the mailbox rules. The petition's state may not be here yet, so
        the version is found by comparing keys.
        """
        invalid: InvalidEmail | None = None
        for rules in NEWEST_FIRST:
            try:
                canonical = canonical_email(command.email, rules)
            except InvalidEmail as error:
                invalid = invalid or error
                continue
            key = signer_key(self._pepper, command.petition_id, canonical)
            if record_key == key.hex.encode():  # byte for byte, because these bytes chose the lane
                domain = canonical.rpartition("@")[2]
                return key, domain if rules == LATEST else canonical_domain(domain)
        if invalid is not None:
            raise InvalidRecord("email_invalid", str(invalid))
        _key(record_key)  # raises if it is not a signer key at all
        # Another pepper, or a producer with another key. To count the command would let one person sign twice.
        raise InvalidRecord("signer_key_mismatch", "the record key is not the signer key of its e-mail and petition")

    async def process(self, batch: Sequence[SubmittedCommand]) -> None:
        """Decide, store and publish a batch. Returns when Kafka has acknowledged every fact. Idempotent.

        Raises:
            SetAside: commands contradict what is stored.
            CatalogueBehind, LaneTaken, asyncpg.PostgresError, aiokafka.errors.KafkaError, OSError: retry the batch.
        """
        judged = await self._judge(batch)
        decided = await self._apply(judged)
        await failpoint("verify.committed")
        started = time.perf_counter()
        await self._producer.publish_in_order(SIGNATURES_VERIFIED.name, (fact_record(row) for row in decided.ledger))
        await failpoint("verify.facts_published")
        await self._producer.publish_in_order(
            SIGNATURES_REJECTED.name, (rejection_record(refused) for refused in decided.refused)
        )
        self._metrics.publish_seconds.observe(time.perf_counter() - started)
        self._observe(batch, decided)

    async def _judge(self, submissions: Sequence[SubmittedCommand]) -> list[tuple[SubmittedCommand, Judgement | None]]:
        judged = [(item, self._judge_one(item)) for item in submissions]
        if any(
            judgement is not None and judgement.reason is not None and judgement.reason not in NEEDS_NO_PETITION
            for _, judgement in judged
        ):
            # The petition may be newer than our copy. The ingest that accepted the signature knew its state, so that state
            # is on the topic by now. A refusal is final only after it was read.
            await self._feed.catch_up()
            judged = [(item, self._judge_one(item)) for item in submissions]
        return judged

    def _judge_one(self, submission: SubmittedCommand) -> Judgement | None:
        if not is_sign(submission):
            return None
        return judge(submission, self._catalogue.get(submission.command.petition_id))

    async def _apply(self, judged: list[tuple[SubmittedCommand, Judgement | None]]) -> Decided:
        started = time.perf_counter()
        try:
            decided = await self._store.apply(judged)
        except LaneTaken:
            self._metrics.lane_taken.inc()
            raise
        self._metrics.store_seconds.observe(time.perf_counter() - started)
        return decided

    def _observe(self, submissions: Sequence[SubmittedCommand], decided: Decided) -> None:
        replays = decided.replays
        self._metrics.replays.inc(len(replays))
        for state, number in decided.not_applicable.items():
            self._metrics.not_applicable.labels(reason=state).inc(number)
        self._metrics.erasures.inc(decided.erased)
        if decided.mismatched:
            self._report_mismatched(decided.mismatched)
        ledger, refusals = decided.ledger, decided.refused
        if replays:  # rarely
            ledger = [row for row in ledger if row.event_id not in replays]
            refusals = [refused for refused in refusals if refused.submission.event_id not in replays]
        counts: Counter[tuple[str, str]] = Counter((refused.outcome, refused.reason) for refused in refusals)
        counts[SignatureState.PENDING, ""] = decided.pending
        for kind, number in Counter(row.kind for row in ledger).items():
            counts[kind, ""] = number
        for (outcome, reason), number in counts.items():
            self._metrics.decided.labels(outcome=outcome, reason=reason).inc(number)
        oldest = min(submission.moment for submission in submissions)
        self._metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))

    def _report_mismatched(self, mismatched: Sequence[Mismatch]) -> None:
        for one in mismatched:
            self._metrics.mismatched.labels(reason=one.field).inc()
        first = mismatched[0]  # one log line per batch
        log.warning(
            "commands_mismatched",
            number=len(mismatched),
            reason=first.field,
            partition=first.submission.lane,
            offset=first.submission.offset,
        )


def _moment(command: Command) -> datetime:
    return command.requested_at if isinstance(command, ChangeCommand) else command.submitted_at


def _change_id(command: ChangeCommand, text: str) -> UUID:
    """The event id of a command about an existing signature.

    The ledger has each event id once. The same command under another id would be a second event, and a command under the
    id of another event would hold the lane for ever.
    """
    wanted = command_id(command.signature_id, command.TYPE)
    if text != str(wanted):
        raise InvalidRecord(
            "event_id", "header ce_id must be the id derived from signature_id and ce_type, in lower case"
        )
    return wanted


def _key(key: bytes | None) -> UUID:
    try:
        return UUID(hex=(key or b"").decode("ascii"))
    except ValueError:
        raise InvalidRecord("key", "the record key must be a signer key: 32 hexadecimal digits") from None
