"""Wires the mail catcher: SMTP and HTTP on one event loop, over one store."""

import asyncio
import signal
from functools import partial

import uvicorn
from aiosmtpd.smtp import SMTP

from deploy.local.mailbox.pages import mailbox_pages
from deploy.local.mailbox.settings import MailboxSettings
from deploy.local.mailbox.smtp import CatchAll, Refusals
from deploy.local.mailbox.store import MailboxStore


async def run(settings: MailboxSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    store = MailboxStore(settings.file)
    refusals = Refusals()
    session = partial(
        SMTP, CatchAll(store=store, refusals=refusals), hostname="mailbox.localhost", enable_SMTPUTF8=True
    )
    smtp = await asyncio.get_running_loop().create_server(session, settings.host, settings.smtp_port)
    pages = uvicorn.Server(
        uvicorn.Config(
            mailbox_pages(store=store, refusals=refusals),
            host=settings.host,
            port=settings.http_port,
            log_level="warning",
            lifespan="off",
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops on these signals and then raises them again for the previous handlers: without a handler, a graceful
        # stop would end as "killed by SIGTERM".
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    async with smtp:
        await pages.serve()
