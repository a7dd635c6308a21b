"""What tally tells other services: each milestone once, the newest snapshot of every petition, and what it takes back."""

from typing import Final

SOURCE: Final = "/groundswell/tally"
"""The ``ce_source`` of what tally publishes."""
