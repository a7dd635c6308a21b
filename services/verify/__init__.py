"""verify: decides which signatures count. The only writer of the signatures and the ledger."""
