"""What a user would build instead: minimal, idiomatic, and without handicaps.

Peers run on the same Kafka, PostgreSQL and Valkey with the same settings, wait for the same acknowledgements, and have
uvloop and httptools like Groundswell. They save the work of what they leave out (canonical e-mail, replays, fences, dead
letters, limits).
"""
