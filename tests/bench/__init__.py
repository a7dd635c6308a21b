"""The benchmark: `groundswell bench`, or `python -m tests.bench`.

Scenarios in `scenarios/` drive the real services on real parts (Apache Kafka, PostgreSQL, Valkey) and compare them, in
the same run and round by round, with what a team would build instead (`peers/`) and with the least code that could do
the work (`floors/`). The load comes from a separate program (wrk), outside the measured processes. Numbers of one run on one
machine mean little by themselves; the goals are about their ratios.
"""
