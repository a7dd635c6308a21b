"""The embedded stack: every part of Groundswell as processes of this machine, on loopback, with nothing installed.

`groundswell up`, the demo and the integration tests all start the parts from here, so what is tested is what runs.
Each part (Kafka, Valkey, PostgreSQL, mail catcher, service) is a `deploy.local.parts.process.Process`: it can be started,
stopped, killed, paused and restarted alone. `deploy.local.stack` puts them together.
"""

from pathlib import Path

import deploy

PROJECT_ROOT = Path(deploy.__file__).resolve().parents[1]
"""Where the source tree lies: `services` is found from here, and `.tools/` (downloaded jars) is kept here."""

STATE_DIR = Path(".groundswell")
"""Data, logs and `stack.json` of `groundswell up`: in the directory where the command was called."""

DEMO_STATE_DIR = STATE_DIR / "demo"
"""The same of the demo, which may run beside it."""
