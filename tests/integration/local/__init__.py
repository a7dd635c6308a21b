"""The stack on this machine, and the demo."""
