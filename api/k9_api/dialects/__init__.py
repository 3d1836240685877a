"""What callers speak, turned into requests, and results turned into what callers read. Pure: no I/O."""
