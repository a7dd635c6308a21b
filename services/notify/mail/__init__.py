"""Mail: its bytes, the SMTP server, and the meaning of the server's replies."""
