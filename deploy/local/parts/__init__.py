"""The parts of the stack: Kafka, Valkey, PostgreSQL, mail catcher and services, each one process that can be started, stopped,
killed, paused and restarted alone."""
