"""The local stack: all parts of Groundswell as processes on this machine, on loopback, without system-wide installation.

`groundswell up`, the demo and the integration tests all start their parts from here, so they run the same system.
Each part (Kafka, Valkey, PostgreSQL, mail catcher, service) is a `deploy.local.parts.process.Process`: it can be started,
stopped, killed, paused and restarted alone. `deploy.local.stack` puts them together.
"""

from pathlib import Path

import deploy

PROJECT_ROOT = Path(deploy.__file__).resolve().parents[1]
"""The root of the source tree: `services` is found from here, and `.tools/` (downloaded jars) is kept here."""

STATE_DIR = Path(".groundswell")
"""Data, logs and `stack.json` of `groundswell up`, in the current directory."""

DEMO_STATE_DIR = STATE_DIR / "demo"
"""The same for the demo, which may run at the same time."""
