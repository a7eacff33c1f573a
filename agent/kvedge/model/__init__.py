"""Pure data: what a path, a value, a stamp and an entry are, and how two records merge.

No I/O, no clock, no randomness, no waiting: everything here is a function of its arguments.
"""
