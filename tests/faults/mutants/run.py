"""``python -m tests.faults.mutants.run MUTANT SERVICE [--whole]``: a service as a mutant, by the service's own main.

With ``--whole`` the protocol is unchanged, and only the failpoints are added that the mutant's schedule needs.
"""

from __future__ import annotations

import runpy
import sys
from argparse import ArgumentParser

from deploy.local.parts.service import SERVICES
from tests.faults.mutants import mutants


def main() -> None:
    """Apply the patches and run the service."""
    known = mutants()
    parser = ArgumentParser(prog="python -m tests.faults.mutants.run")
    parser.add_argument("mutant", choices=sorted(known))
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    mutant = known[arguments.mutant]
    if arguments.service == mutant.service:
        if mutant.points is not None:
            mutant.points()
        if mutant.break_it is not None and not arguments.whole:
            mutant.break_it()
    sys.argv[1:] = []
    runpy.run_module(f"services.{arguments.service}", run_name="__main__")


if __name__ == "__main__":
    main()
