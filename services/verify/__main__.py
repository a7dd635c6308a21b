"""``python -m services.verify``"""

import sys

from services.verify.app import build
from services.verify.settings import Settings
from shared.service import main

if __name__ == "__main__":
    sys.exit(main("verify", Settings, build))
