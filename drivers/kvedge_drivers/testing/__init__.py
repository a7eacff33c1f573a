"""Simulated hardware, for the tests of drivers and of the jobs that use them."""
