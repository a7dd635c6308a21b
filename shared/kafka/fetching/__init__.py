"""Between the brokers and the consumers: reading past what the Kafka client cannot unpack."""
