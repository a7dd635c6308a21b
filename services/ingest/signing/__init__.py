"""Signing: from a submission to a command that Kafka has acknowledged."""
