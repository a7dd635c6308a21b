"""Fetched batches, before consumers see them: reads past batches and records that the Kafka client cannot unpack."""
