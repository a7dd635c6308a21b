"""What can be asked, and commanded, about a signature that was submitted."""
