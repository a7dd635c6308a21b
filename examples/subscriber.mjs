// npm install kafkajs@2.2.4
import { randomUUID } from "node:crypto";
import { Kafka, logLevel } from "kafkajs";

const DAY = 86_400_000; // milliseconds
const newest = new Map();
const kafka = new Kafka({ brokers: process.env.KAFKA_BOOTSTRAP_SERVERS.split(","), logLevel: logLevel.ERROR });
// A group of its own that commits nothing: every start reads the last count of every petition, then what is new.
const tallies = kafka.consumer({ groupId: `counts-${randomUUID()}` });

await tallies.connect();
await tallies.subscribe({ topic: "tallies.updated.v1", fromBeginning: true });
await tallies.run({
  autoCommit: false,
  eachMessage: async ({ message }) => {
    if (String(message.headers.ce_type) !== "groundswell.tally.updated.v1") return; // an event newer than this program
    const { petition_id, count, epoch = 0, revision } = JSON.parse(message.value);
    const [lastEpoch, lastRevision] = newest.get(petition_id) ?? [0, -1];
    const isNewer = epoch > lastEpoch || (epoch === lastEpoch && revision > lastRevision);
    if (!isNewer || epoch > Number(message.timestamp) + DAY) return; // delivered once more, or not written by tally
    newest.set(petition_id, [epoch, revision]);
    console.log(petition_id, count, "revision", revision);
  },
});
