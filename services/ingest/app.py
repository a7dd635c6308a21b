"""Wiring of ingest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from services.ingest.access.access import Access
from services.ingest.admin.events import AdminEvents
from services.ingest.admin.upkeep import AdminUpkeep
from services.ingest.metrics import IngestMetrics
from services.ingest.petitions.calls import PetitionEndpoints
from services.ingest.petitions.changes import PetitionChanges
from services.ingest.routes import Dispatcher, other_routes
from services.ingest.settings import Settings, split
from services.ingest.signatures.calls import SignatureEndpoints
from services.ingest.signatures.store import OutcomeStore
from services.ingest.signing.batch import BatchEndpoint
from services.ingest.signing.clock import Clock
from services.ingest.signing.intake import Intake
from services.ingest.signing.sign import SignEndpoint
from services.ingest.web.answers import Answers
from services.ingest.web.clients import Clients, parse_networks
from services.ingest.web.limits import ClientRate, InFlight
from shared.contract.catalogue import Catalogue
from shared.contract.topics import PETITIONS_CHANGED, SIGNATURES_SUBMITTED
from shared.kafka.catalogue_feed import CatalogueFeed
from shared.kafka.errors import is_transient
from shared.kafka.group_lag import GroupLag
from shared.kafka.producer import EventProducer
from shared.kafka.registration import document_writes
from shared.postgres import Database
from shared.runtime.background import background
from shared.service import Service, new_broker, new_registry

_CATALOGUE_POLL_SECONDS = 0.1


def build(settings: Settings) -> Service:
    """Put an ingest process together; nothing connects before it is run."""
    registry = new_registry()
    broker = new_broker(settings, registry, "ingest")
    database = Database(settings.postgres_url.get_secret_value(), application="ingest")
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, registry, on_bug=lambda bug: service.fail(bug))  # noqa: PLW0108  made below
    in_flight = InFlight(settings.max_in_flight)
    metrics = IngestMetrics(registry, in_flight=lambda: in_flight.count)
    clock = Clock(metrics, tolerance=settings.clock_tolerance_seconds)
    producer = EventProducer(settings, on_arrival=clock.appended)
    clients = Clients(parse_networks(settings.trusted_proxies), settings.proxy_header)
    access = Access(settings, clients)
    answers = Answers(pages_url=settings.public_pages_url, metrics=metrics)
    intake = Intake(
        catalogue=catalogue,
        catalogue_complete=lambda: feed.complete,
        producer=producer,
        clock=clock,
        pepper=settings.pepper,
        on_bug=lambda bug: service.fail(bug),  # noqa: PLW0108
    )
    sign = SignEndpoint(
        intake=intake,
        access=access,
        clients=clients,
        rate=ClientRate(settings.client_rate),
        in_flight=in_flight,
        answers=answers,
        metrics=metrics,
    )
    events = AdminEvents(database, metrics)
    others = other_routes(
        sign=sign,
        batch=BatchEndpoint(intake=intake, access=access, batches=InFlight(settings.max_batches), metrics=metrics),
        petitions=PetitionEndpoints(
            intake=intake,
            catalogue=catalogue,
            access=access,
            changes=PetitionChanges(intake=intake, catch_up=feed.catch_up, events=events, metrics=metrics),
            events=events,
        ),
        signatures=SignatureEndpoints(
            intake=intake,
            store=OutcomeStore(database),
            access=access,
            events=events,
            clients=clients,
            rate=ClientRate(settings.client_rate),
            answers=answers,
            metrics=metrics,
            pepper=settings.pepper,
        ),
        answers=answers,
        metrics=metrics,
    )
    routes: ASGIApp = Dispatcher(sign=sign, others=others, in_flight=in_flight, answers=answers)
    if origins := split(settings.cors_origins):
        routes = CORSMiddleware(
            routes,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["content-type", "idempotency-key"],
            expose_headers=["location", "retry-after"],
        )

    group_lag = GroupLag(settings, registry)
    feed.subscribe(broker)
    document_writes(broker, SIGNATURES_SUBMITTED.name, PETITIONS_CHANGED.name)

    async def read_catalogue() -> None:
        """Find out when the catalogue is complete, also while nobody asks for readiness."""
        while not feed.complete:
            try:
                await feed.check()
            except Exception as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(_CATALOGUE_POLL_SECONDS)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        work = (
            database.open(),
            producer.start_when_reachable(),
            read_catalogue(),
            clock.watch(),
            clock.ask(database),
            AdminUpkeep(intake=intake, feed=feed, events=events).run(),
            group_lag.run(),
        )
        async with background(service.fail, *work):
            yield
        await producer.stop()
        await database.close()

    service = Service(
        name="ingest",
        title="Groundswell ingest",
        settings=settings,
        port=settings.port,
        broker=broker,
        registry=registry,
        lifespan=lifespan,
        checks={"kafka": producer.check, "catalogue": feed.check, "clock": clock.check},
        # Signatures are taken in without PostgreSQL; only status and commands need it.
        side_checks={"postgres": database.check},
        routes=routes,
    )
    return service
