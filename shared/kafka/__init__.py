"""Kafka: event headers, the ordered producer, the batch consumer and its failure rules, dead letters, the catalogue feed."""
