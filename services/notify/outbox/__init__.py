"""The outbox: deliveries, from the row that is written once to the server's final reply."""
