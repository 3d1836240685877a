"""Adapters: the ports of K-9 on Redis and Celery. The only rooms of the broker that do I/O."""
