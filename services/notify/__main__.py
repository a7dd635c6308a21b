"""``python -m services.notify``: read the settings, then run until SIGTERM."""

from __future__ import annotations

import sys

from services.notify.app import build
from services.notify.settings import Settings
from shared.settings import SettingsError, load
from shared.telemetry import configure_logging


def main() -> int:
    """Run notify. Returns the exit code: 0 after a stop, 1 after a bug, 2 when the configuration is wrong."""
    try:
        settings = load(Settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging(settings, "notify")
    return build(settings).run()


if __name__ == "__main__":
    sys.exit(main())
