"""The protocol as a state machine: random programs of failures against the real verify, tally and Lua."""
