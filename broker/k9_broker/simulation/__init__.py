"""What K-9 would do, worked out in simulated time with the very rules it runs by."""
