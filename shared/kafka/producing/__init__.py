"""Publishing records."""
