"""What several services need: events, topics, identity, and the clients of Kafka, PostgreSQL, Redis and HTTP.

Nothing here knows a service. What only one service needs lives in that service.
"""
