"""Consuming a topic in a consumer group: batches that are held, set aside and committed."""
