"""`k9 up`: everything on this machine, started, watched and stopped by one process."""
