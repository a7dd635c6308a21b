"""Mail providers' rules about spellings that reach one mailbox."""
