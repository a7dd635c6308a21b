"""A mail: its bytes, the server it is handed to, and what the server's answers mean."""
