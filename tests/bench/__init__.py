"""The benchmark: `groundswell bench`, or `python -m tests.bench`.

Scenarios in `scenarios/` drive the real services on real parts (Apache Kafka, PostgreSQL, Valkey) and compare them, in
the same run and round by round, with what a team would build instead (`peers/`) and with the least that could do the
work at all (`floors/`). The load comes from a program of its own (wrk), outside the measured processes. Numbers of one
run on one machine are worth little by themselves; their ratios are what the goals are about.
"""
