"""The checks of the gate, each one small function; ``quality_check.CHECKS`` lists them."""
