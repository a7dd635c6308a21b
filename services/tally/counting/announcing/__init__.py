"""What tally announces: each milestone once, the newest snapshot of every petition, and snapshots that it takes back."""

from typing import Final

SOURCE: Final = "/groundswell/tally"
"""The ``ce_source`` of tally's events."""
