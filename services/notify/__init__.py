"""notify: turns milestones into deliveries and sends them. The one writer of the deliveries."""
