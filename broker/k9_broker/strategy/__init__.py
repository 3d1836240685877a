"""Rules that decide where a job may go: pure, no I/O, no clock."""
