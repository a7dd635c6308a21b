"""A consumer group's part of a topic: batches, what is held, set aside, committed."""
