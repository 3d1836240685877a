"""The API and the command line: the edges people and programs touch."""
