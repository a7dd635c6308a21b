"""The outbox: deliveries from the row that is written once to the mail that a server took, or did not."""
