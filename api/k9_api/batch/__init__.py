"""The batch client: a file of lines in, a file of vectors out, through K-9's jobs API."""
