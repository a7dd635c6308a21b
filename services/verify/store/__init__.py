"""The signatures and the ledger in PostgreSQL: SQL only. `services.verify.deciding` interprets the rows."""

from services.verify.store.errors import LaneTaken
from services.verify.store.transaction import VerifyStore

__all__ = ["LaneTaken", "VerifyStore"]
