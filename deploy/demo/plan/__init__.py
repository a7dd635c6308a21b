"""What the demo sends: people who sign petitions, what they send wrong, and poison; the same at every run."""
