-- Positions are counted up by one from 1. One far ahead was written by hand, and the next one after it would leave the
-- range of bigint, or of the numbers that Lua and JavaScript keep exactly. 2^52 is never reached by counting.
-- NOT VALID: rows that are there are not read, so the table is not locked for long. New rows are checked.
ALTER TABLE ledger ADD CONSTRAINT ledger_position_bounds CHECK (position BETWEEN 1 AND 4503599627370496) NOT VALID;
