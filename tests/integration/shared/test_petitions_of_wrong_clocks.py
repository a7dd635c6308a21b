"""Petitions that an ingest with a wrong clock has written, once."""

from datetime import UTC, datetime, timedelta

import pytest

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.apply_topics import apply_topics
from shared.kafka.producing.producer import EventProducer
from tests.integration.shared.test_catalogue_feed import changed, reading
from tests.support.consuming import settings_for
from tests.support.waiting import eventually
from tests.unit.shared.contract.petitions import petition


@pytest.mark.usefixtures("needs_apache")
async def test_a_petition_from_a_wrong_clock_is_known_and_is_not_the_latest_one_for_ever(kafka: KafkaBroker) -> None:
    await apply_topics(kafka.bootstrap_servers)
    strange = [
        petition(f"of-the-year-{year}", title="Kept", changed_at=datetime(year, 12, 31, 23, tzinfo=UTC))
        for year in (1, 1970, 2101, 9999)
    ]
    writer = EventProducer(settings_for(kafka))
    await writer.start()
    try:
        await writer.publish_in_order(PETITIONS_CHANGED.name, [changed(event) for event in strange])
    finally:
        await writer.stop()
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        for event in strange:
            known = reader.catalogue.get(event.petition_id)
            assert known is not None
            assert known.title == "Kept"
            assert abs(datetime.now(UTC) - known.changed_at) < timedelta(minutes=5), "when its record arrived"
