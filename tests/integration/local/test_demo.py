"""The demo, scaled down to a fiftieth, as a person starts it: the whole system on real parts, checked to the last figure."""

import asyncio
import json
import sys
from pathlib import Path

from deploy.demo.plan.surge import Surge

SCALE = 0.02


async def test_the_demo_counts_every_supporter_once_and_accounts_for_everything_it_sent(
    tmp_path: Path, *, apache_is_here: bool
) -> None:
    broker = "apache" if apache_is_here else "embedded"
    arguments = ["--json", "--broker", broker, "--scale", str(SCALE), "--state-dir", str(tmp_path / "state")]
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await demo.communicate()
    assert demo.returncode == 0, err.decode()

    found = json.loads(out.decode().splitlines()[-1])
    surge = Surge(scale=SCALE)
    expected = surge.expectation
    assert found["ok"] is True
    assert found["broker"] == broker
    assert found["supporters"] == surge.petitions.supporters
    assert found["petitions"] == {
        petition.petition_id: dict.fromkeys(("expected", "verified", "tally"), petition.supporters)
        for petition in surge.petitions.open
    }
    assert found["sent"] == expected.sent == sum(found["outcomes"].values())
    assert found["outcomes"] == {
        **{outcome: expected.total(outcome) for outcome in ("verified", "duplicate", "rejected", "refused")},
        "dead_lettered": len(surge.poison),
    }
    assert found["milestones"] == sum(len(petition.reached) for petition in surge.petitions.open)
    targets = sum(len(petition.targets) for petition in surge.petitions.open)
    deliveries = sum(len(petition.reached) * len(petition.targets) for petition in surge.petitions.open)
    assert targets <= found["mails"] < deliveries
    assert found["drift"] == 0
    assert set(found["cpu_seconds"]) >= {"ingest", "verify", "tally", "notify", "kafka", "postgres", "valkey", "demo"}
