"""The mail catcher as a part of the stack: `python -m deploy.local.mailbox` in its own process."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from deploy.local.mailbox.store import Mail
from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import Process


class MailCatcher(Process):
    """An SMTP server that keeps every mail and shows it on a page.

    Args:
        data_dir: the folder in which the mails are kept over restarts.
    """

    def __init__(
        self, *, data_dir: Path, log_dir: Path, smtp_port: int | None = None, http_port: int | None = None
    ) -> None:
        super().__init__(name="mailbox", log_file=log_dir / "mailbox.log")
        self.smtp_port = smtp_port or free_port()
        self.http_port = http_port or free_port()
        self._data_dir = data_dir

    @property
    def url(self) -> str:
        """`smtp://` address to send to."""
        return f"smtp://{LOOPBACK}:{self.smtp_port}"

    @property
    def page_url(self) -> str:
        """Address of the mailbox page."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"SMTP_URL": self.url}

    async def messages(self, to: str | None = None) -> list[Mail]:
        """Return the mails caught so far, the oldest first; only those to one recipient if `to` is given."""
        async with self._client() as client:
            response = await client.get("/messages", params={"to": to} if to else None)
            return [Mail.model_validate(mail) for mail in response.raise_for_status().json()]

    async def clear(self) -> None:
        """Remove all mails."""
        async with self._client() as client:
            (await client.delete("/messages")).raise_for_status()

    async def refuse(self, replies: Mapping[str, str]) -> None:
        """Answer these recipients with an SMTP error ("451 try later") from now on, and all others with 250.

        An empty mapping accepts all mail again. A restart of the catcher resets it.
        """
        async with self._client() as client:
            (await client.put("/refusals", json=dict(replies))).raise_for_status()

    def _client(self) -> httpx.AsyncClient:
        # Plain HTTP on loopback: loading certificates would cost 24 ms each time, and no proxy is between us.
        return httpx.AsyncClient(base_url=self.page_url, verify=False, trust_env=False)  # noqa: S501  no TLS

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "deploy.local.mailbox"]

    def _environ(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "MAILBOX_HOST": LOOPBACK,
            "MAILBOX_SMTP_PORT": str(self.smtp_port),
            "MAILBOX_HTTP_PORT": str(self.http_port),
            "MAILBOX_FILE": str(self._data_dir.resolve() / "mailbox.jsonl"),
        }

    async def _is_ready(self) -> bool:
        # SMTP listens before HTTP does (deploy.local.mailbox.app), so an answer of the page suffices.
        try:
            async with self._client() as client:
                return (await client.get("/messages")).is_success
        except httpx.TransportError:
            return False
