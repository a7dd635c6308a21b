"""The fault harness: surges through the whole system under injected faults, with a proof of the count afterwards.

`groundswell faults` (or `python -m tests.faults`) runs a campaign. How a run goes, from the top: `campaign` starts a
`world` (real Kafka, PostgreSQL, Valkey, SMTP, the four services) and plays runs in it; `schedule` draws the faults of a
run from the `catalogue` by its seed; `run` sends a `surge`, starts the faults meanwhile, waits for quiet; `observers` watch
the system from outside; `invariants` and `logs` check what they saw.
"""
