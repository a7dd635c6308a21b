"""What the demo sends: signatures, invalid submissions and poison records, the same in every run."""
