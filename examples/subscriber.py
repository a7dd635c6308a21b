# pip install aiokafka==0.14.0
import asyncio
import json
import os

from aiokafka import AIOKafkaConsumer

DAY = 86_400_000  # milliseconds


async def main():
    newest = {}
    async with AIOKafkaConsumer(
        "tallies.updated.v1", bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], auto_offset_reset="earliest"
    ) as tallies:
        async for record in tallies:
            if dict(record.headers).get("ce_type") != b"groundswell.tally.updated.v1":
                continue  # a type of event that came after this program
            tally = json.loads(record.value)
            epoch, revision = version = tally.get("epoch", 0), tally["revision"]
            if epoch > record.timestamp + DAY or version <= newest.get(tally["petition_id"], (0, -1)):
                continue  # not written by tally, or delivered once more
            newest[tally["petition_id"]] = version
            print(tally["petition_id"], tally["count"], "revision", revision, flush=True)


asyncio.run(main())
