"""Counting: from facts to counts in Redis, their proof, their announcements, and their repair."""
