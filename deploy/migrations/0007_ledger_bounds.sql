-- Positions rise by one from 1. One far ahead was written manually, and the next one could leave the range of bigint, or of
-- the integers that Lua and JavaScript represent exactly. Counting never reaches 2^52.
-- NOT VALID: only new rows are checked, so that the table is not locked for long.
ALTER TABLE ledger ADD CONSTRAINT ledger_position_bounds CHECK (position BETWEEN 1 AND 4503599627370496) NOT VALID;
