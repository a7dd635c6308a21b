"""``python -m services.tally``"""

import sys

from services.tally.app import build
from services.tally.settings import Settings
from shared.service import main

if __name__ == "__main__":
    sys.exit(main("tally", Settings, build))
