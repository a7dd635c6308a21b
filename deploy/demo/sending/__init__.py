"""Sends the plan to ingest and Kafka, and records the answers."""
