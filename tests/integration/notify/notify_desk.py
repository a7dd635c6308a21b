"""Fixtures for the tests of notify's sender: a database, a scripted SMTP server, and senders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from prometheus_client import CollectorRegistry

from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from services.notify.deliveries import Claim, Delivery, deliveries_for, delivery_id
from services.notify.mail.letter import MailWriter
from services.notify.mail.server import SmtpServer
from services.notify.mail.smtp import SmtpRelay
from services.notify.metrics import NotifyMetrics
from services.notify.milestones.store import MilestoneStore
from services.notify.outbox.sender import Sender
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.contract.events import MilestoneReached, Organisation, PetitionChanged, Target
from shared.postgres import Database
from tests.support.scripted_smtp import ScriptedSmtp, Taken
from tests.support.waiting import eventually

MINUTE = timedelta(minutes=1)


@dataclass
class Desk:
    """A database, a scripted SMTP server, and senders, for one test."""

    url: str
    eyes: asyncpg.Connection
    store: DeliveryStore
    milestones: MilestoneStore
    smtp: ScriptedSmtp
    registry: CollectorRegistry
    metrics: NotifyMetrics
    catalogue: Catalogue
    """What the senders know of petitions."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """`eyes` runs one query at a time, and code that runs during a mail queries as well."""

    def settings(self, **changes: Any) -> Settings:
        """Settings of a sender that is in a hurry."""
        return Settings.model_validate(
            {
                "postgres_url": self.url,
                "smtp_url": self.smtp.url,
                "public_pages_url": "https://pages.example",
                "mail_from": "Groundswell <petitions@groundswell.example>",
                "coalesce_seconds": 0.0,
                "poll_seconds": 0.01,
                "retry_first_seconds": 0.02,
                "retry_most_seconds": 0.02,
                "smtp_timeout_seconds": 5.0,
                "lease_seconds": 10.0,
                **changes,
            }
        )

    def sender(self, **changes: Any) -> Sender:
        """A sender that is not at work yet."""
        settings = self.settings(**changes)
        return Sender(
            store=self.store,
            relay=SmtpRelay(
                SmtpServer.parse(settings.smtp_url.get_secret_value()), timeout_seconds=settings.smtp_timeout_seconds
            ),
            writer=MailWriter(mail_from=settings.mail_from, pages_url=settings.public_pages_url),
            catalogue=self.catalogue,
            catch_up=self.catch_up,
            settings=settings,
            metrics=self.metrics,
        )

    async def catch_up(self) -> None:
        """The catalogue is up to date: tests write into it."""

    @asynccontextmanager
    async def sending(self, sender: Sender | None = None, **changes: Any) -> AsyncIterator[Sender]:
        """A sender at work; at the end it is stopped and must end by itself."""
        sender = sender or self.sender(**changes)
        run = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            sender.stop()
            await asyncio.wait_for(run, timeout=60)

    async def reached(
        self, *thresholds: int, targets: int = 1, petition_id: str = "night-ferry", **wait: float
    ) -> None:
        """Milestones were reached: tally decided them, and their deliveries are written, by default due at once."""
        self.catalogue.apply(petition(targets, petition_id))
        for threshold in thresholds:
            await self.decide(milestone(threshold, petition_id))
        rows = [row for threshold in thresholds for row in deliveries(threshold, targets, petition_id)]
        await self.milestones.add(rows, [], due_in=timedelta(**wait))

    async def decide(self, reached: MilestoneReached) -> None:
        """Tally records a milestone."""
        async with self.looking:
            await self.eyes.execute(
                "INSERT INTO milestones (petition_id, threshold, count, revision, reached_at) VALUES ($1, $2, $3, $4, $5)"
                " ON CONFLICT DO NOTHING",
                reached.petition_id,
                reached.threshold,
                reached.count,
                reached.revision,
                reached.reached_at,
            )

    def finished_as(self, outcome: str) -> float | None:
        """The number of deliveries with this outcome."""
        return self.registry.get_sample_value("groundswell_notify_deliveries_total", {"outcome": outcome})

    async def take(self, lease_for: timedelta = MINUTE) -> tuple[UUID, list[Claim]]:
        """Claim what is due as a sender would, and do nothing with it."""
        lease = uuid4()
        return lease, (await self.store.claim(limit=10, lease=lease, lease_for=lease_for)).mails

    def held(self, cause: str | None = None) -> float:
        """How often senders had to wait, for this cause or any."""
        return sum(
            sample.value
            for family in self.metrics.holds.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and cause in (None, sample.labels["cause"])
        )

    async def rows(self) -> list[asyncpg.Record]:
        """All deliveries, by petition, threshold and target."""
        async with self.looking:
            return await self.eyes.fetch("SELECT * FROM deliveries ORDER BY petition_id, threshold, target_id")

    async def states(self) -> list[str]:
        """Their states, in the same order."""
        async with self.looking:
            found = await self.eyes.fetch("SELECT state FROM deliveries ORDER BY petition_id, threshold, target_id")
        return [row["state"] for row in found]

    async def finished(self) -> None:
        """Wait until nothing is left to be sent."""

        async def all_ended() -> bool:
            return not set(await self.states()) & {"pending", "sending"}

        await eventually(all_ended, "every delivery came to an end")

    async def has_taken(self, mails: int) -> list[Taken]:
        """Wait until the server has the content of so many mails."""
        await eventually(lambda: len(self.smtp.taken) >= mails, f"the server has {mails} mails")
        return self.smtp.taken


def deliveries(threshold: int, targets: int = 1, petition_id: str = "night-ferry") -> list[Delivery]:
    """What a milestone asks for, on a petition that addresses so many offices."""
    return deliveries_for(milestone(threshold, petition_id), petition(targets, petition_id))


def milestone(threshold: int, petition_id: str = "night-ferry") -> MilestoneReached:
    """A milestone that was reached just now."""
    return MilestoneReached(
        petition_id=petition_id,
        threshold=threshold,
        count=threshold + 3,
        revision=threshold,
        reached_at=datetime.now(UTC),
    )


def petition(targets: int = 1, petition_id: str = "night-ferry", **emails: str) -> PetitionChanged:
    """A petition that addresses so many offices.

    Args:
        targets: How many.
        petition_id: Its id.
        emails: Addresses of offices, ``office_0`` the first; the others have the one that they always have.
    """
    return PetitionChanged(
        petition_id=petition_id,
        organisation=Organisation(slug="harbour-friends", name="Friends of the Harbour"),
        title="Keep the night ferry",
        text="It brings people home.",
        targets=[
            Target(
                target_id=f"office-{number}",
                name=f"Office {number}",
                email=emails.get(f"office_{number}", f"office{number}@harbour.example"),
            )
            for number in range(targets)
        ],
        changed_at=datetime.now(UTC),
    )


def message_id(threshold: int, target: int = 0, petition_id: str = "night-ferry") -> str:
    """The Message-ID that the mail about this milestone must have."""
    return f"<{delivery_id(petition_id, threshold, f'office-{target}')}@groundswell.example>"


async def new_database(postgres: Postgres) -> str:
    """A database with our tables."""
    url = await postgres.create_database(f"notify_{uuid4().hex[:8]}")
    await migrate(url)
    return url


@asynccontextmanager
async def open_desk(database_url: str, *, empty: bool = True) -> AsyncIterator[Desk]:
    """A desk with empty tables, or with the existing rows."""
    eyes = await asyncpg.connect(database_url)
    if empty:
        await eyes.execute("TRUNCATE deliveries, milestones_waiting, milestones")
    database = Database(database_url, application="notify-test")
    await database.open()
    registry = CollectorRegistry()
    async with ScriptedSmtp() as smtp:
        yield Desk(
            database_url,
            eyes,
            DeliveryStore(database),
            MilestoneStore(database),
            smtp,
            registry,
            NotifyMetrics(registry),
            Catalogue(),
        )
    await database.close()
    await eyes.close()
