"""What verify publishes of a decision, as records for Kafka."""
