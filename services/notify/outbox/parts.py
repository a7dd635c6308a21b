"""The parts of the outbox: from deliveries in PostgreSQL to mails at the relay."""

from __future__ import annotations

from dataclasses import dataclass

from services.notify.mail.letter import MailWriter
from services.notify.mail.server import SmtpServer
from services.notify.mail.smtp import SmtpRelay
from services.notify.metrics import NotifyMetrics
from services.notify.outbox.corrections import Corrections
from services.notify.outbox.sender import Sender
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """The interface of the outbox to app.py and other rooms."""

    store: DeliveryStore
    relay: SmtpRelay
    sender: Sender
    corrections: Corrections


def new_outbox(
    settings: Settings, *, database: Database, catalogue: Catalogue, feed: CatalogueFeed, metrics: NotifyMetrics
) -> Outbox:
    """Put the outbox together.

    Args:
        settings: The relay, leases, retries.
        database: Holds the deliveries.
        catalogue: The petitions with their targets.
        feed: Fills the catalogue.
        metrics: The metrics of notify.
    """
    store = DeliveryStore(database)
    relay = SmtpRelay(
        SmtpServer.parse(settings.smtp_url.get_secret_value()),
        timeout_seconds=settings.smtp_timeout_seconds,
        authorities=settings.smtp_ssl_ca,
    )
    sender = Sender(
        store=store,
        relay=relay,
        writer=MailWriter(mail_from=settings.mail_from, pages_url=settings.public_pages_url),
        catalogue=catalogue,
        catch_up=feed.catch_up,
        settings=settings,
        metrics=metrics,
    )
    corrections = Corrections(catalogue=catalogue, feed=feed, store=store)
    return Outbox(store=store, relay=relay, sender=sender, corrections=corrections)
