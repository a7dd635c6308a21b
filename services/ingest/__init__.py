"""ingest: accepts signatures over HTTP, and answers only after Kafka has stored them."""
