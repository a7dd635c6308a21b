"""tally: live counts in Redis, proved against verify's ledger; serves them, announces them and their milestones."""
