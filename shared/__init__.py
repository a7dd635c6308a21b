"""Code that several services share: events, topics, identity, and the clients of Kafka, PostgreSQL, Redis and HTTP.

Nothing here depends on a service. Code that only one service needs is in that service.
"""
