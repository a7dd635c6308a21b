"""CPU and memory of a process count with those of its children, also of children that have ended."""

import sys
from pathlib import Path

from tests.bench.measuring.measure import cpu_seconds, rss_bytes
from tests.bench.setup.arena import Command

_BUSY = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"


async def test_a_child_counts_while_it_lives_and_after_its_end(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {_BUSY!r}])\n"  # has ended
        f"subprocess.Popen([sys.executable, '-c', {_BUSY + 'time.sleep(60)'!r}])\n"  # lives
        "time.sleep(0.01)\n"
        f"open({str(tmp_path / 'started')!r}, 'w').close()\n"
        "time.sleep(60)\n"
    )
    process = Command("family", [sys.executable, "-c", script], environ={}, log_dir=tmp_path)
    async with process:
        alone = rss_bytes(process)
        for _ in range(200):
            if cpu_seconds(process) >= 0.4:
                break
            await process.wait(0.1)
        assert cpu_seconds(process) >= 0.4
        assert rss_bytes(process) > alone
