"""tally: keeps live counts in Redis, proves them against verify's ledger, serves and announces them and their milestones."""
