"""`python -m deploy.cli`: the `groundswell` command."""

from deploy.cli import main

main()
