"""Persistent topics for the embedded broker: a small object store with as much of S3 as Tansu needs.

The embedded broker keeps its topics in memory or in an S3 bucket; it cannot write files. Under `groundswell up` it uses this
bucket, which is a folder on this machine. Everything that was acknowledged to a producer is then in a file: topics, records
and the offsets of consumer groups survive a kill of the broker or of the whole stack.
"""

from typing import Final

BUCKET: Final = "topics"
"""The only bucket."""

TOKEN_HEADER: Final = "x-amz-security-token"  # noqa: S105  its name
"""The header with the token: S3's session token, which clients send unchanged."""
