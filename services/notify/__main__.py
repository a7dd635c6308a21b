"""``python -m services.notify``"""

import sys

from services.notify.app import build
from services.notify.settings import Settings
from shared.service import main

if __name__ == "__main__":
    sys.exit(main("notify", Settings, build))
