"""What services share: events, topics, ids, and the rules about forms and petitions that all of them apply."""
