"""The rules that decide a signature, and what is published of a decision. No I/O."""
