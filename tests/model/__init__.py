"""The protocol as a state machine: random programs of accidents against the real verify, the real tally and the real Lua."""
