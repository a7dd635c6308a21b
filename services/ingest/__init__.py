"""ingest: takes signatures in over HTTP, and answers only after Kafka has them."""
