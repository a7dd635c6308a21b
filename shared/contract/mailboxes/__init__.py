"""Mail providers' rules about which spellings reach the same mailbox."""
