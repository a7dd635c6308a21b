"""notify: turns milestones into deliveries and sends them. The only writer of the deliveries."""
