"""Where a benchmark takes place: parts, services and peers, their petitions, and the work that waits."""
