"""The files of the embedded broker's topics: a small object store that speaks as much of S3 as Tansu asks for.

The embedded broker keeps its topics in memory or in an S3 bucket; it cannot write files. Under `groundswell up` it is
given this bucket, which is a folder of this machine. What a producer has an acknowledgement for is then in a file:
topics, records and the offsets of consumer groups are there again after the broker, or everything, was killed.
"""

from typing import Final

BUCKET: Final = "topics"
"""The one bucket that there is."""

TOKEN_HEADER: Final = "x-amz-security-token"  # noqa: S105  its name
"""What carries the token: S3's session token, which its clients send as it is."""
