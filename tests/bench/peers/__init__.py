"""What a user would build instead: minimal, idiomatic, and without handicaps.

Peers run on the same Kafka, PostgreSQL and Valkey with the same settings, wait for the same acknowledgements, and have
uvloop and httptools as Groundswell has. What they leave out (canonical e-mail, replays, fences, dead letters, limits) is
work that they save.
"""
