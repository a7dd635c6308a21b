"""Those who administer petitions: what they see, change and may not, and what is written down about it."""
