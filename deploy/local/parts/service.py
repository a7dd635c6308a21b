"""One instance of one of Groundswell's services as a process of the stack."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import httpx

from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import Process

ServiceName = Literal["ingest", "verify", "tally", "notify"]
SERVICES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)


class ServiceProcess(Process):
    """`python -m services.<name>`; ready when `/readyz` says so and its consumer, if it has one, consumes.

    Args:
        service: which service.
        environment: addresses of the parts and secrets; they override this process's own environment.
        instance: 1, 2, … if there are several; it distinguishes their logs and reports.
    """

    def __init__(
        self,
        service: ServiceName,
        *,
        environment: Mapping[str, str],
        log_dir: Path,
        instance: int = 1,
        port: int | None = None,
    ) -> None:
        name = service if instance == 1 else f"{service}-{instance}"
        super().__init__(name=name, log_file=log_dir / f"{name}.log")
        self.service = service
        self.port = port or free_port()
        self._told = environment

    @property
    def url(self) -> str:
        """Its HTTP address."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The public addresses that other services print into pages and mails."""
        if self.service == "ingest":
            return {"PUBLIC_INGEST_URL": self.url}
        if self.service == "tally":
            return {"PUBLIC_PAGES_URL": self.url}
        return {}

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", f"services.{self.service}"]

    def _environ(self) -> Mapping[str, str]:
        prefix = self.service.upper()
        return {**os.environ, **self._told, f"{prefix}_HOST": LOOPBACK, f"{prefix}_PORT": str(self.port)}

    async def _is_ready(self) -> bool:
        try:
            # Plain HTTP on loopback: loading certificates for HTTPS would take 30 ms of CPU per request.
            async with httpx.AsyncClient(base_url=self.url, verify=False, trust_env=False) as client:  # noqa: S501  no TLS
                answer = await client.get("/readyz")
        except httpx.TransportError as error:
            self._why_not_ready = repr(error)
            return False
        self._why_not_ready = answer.text
        return answer.status_code == httpx.codes.OK and answer.json()["checks"].get("consumer", "ok") == "ok"
