"""Access: administrators and partners, identified by named secrets, some limited to organisations."""
