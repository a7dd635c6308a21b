"""The rules that decide signatures, and the outcome of a batch. No I/O."""
