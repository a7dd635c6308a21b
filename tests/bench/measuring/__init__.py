"""What work has cost, and whether it was counted right."""
