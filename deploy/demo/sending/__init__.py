"""Sends the plan to ingest and Kafka, and keeps what was answered."""
