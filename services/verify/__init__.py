"""verify: decides which signatures stand. The one writer of the signatures and the ledger."""
