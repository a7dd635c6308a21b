"""Runs the mail catcher until SIGTERM."""

import asyncio

from deploy.local.mailbox.app import run
from deploy.local.mailbox.settings import MailboxSettings

if __name__ == "__main__":
    asyncio.run(run(MailboxSettings()))
