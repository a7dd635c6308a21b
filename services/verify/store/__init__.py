"""The signatures and the ledger in PostgreSQL: SQL only. What rows mean is decided in `services.verify.deciding`."""

from services.verify.store.errors import LaneTaken
from services.verify.store.transaction import VerifyStore

__all__ = ["LaneTaken", "VerifyStore"]
