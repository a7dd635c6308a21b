"""What is done to the system."""
