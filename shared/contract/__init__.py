"""What crosses services: events, topics, ids, and the rules about a form or a petition that all of them keep alike."""
