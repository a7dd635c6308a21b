"""``python -m services.ingest``"""

import sys

from services.ingest.app import build
from services.ingest.settings import Settings
from shared.service import main

if __name__ == "__main__":
    sys.exit(main("ingest", Settings, build))
