"""The workers: Celery processes that claim jobs, call a backend and record the outcome."""
