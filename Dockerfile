# One image for the API, the workers and Flower; docker-compose.yml says which process runs what.
FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md ./
COPY broker broker
COPY workers workers
COPY api api
RUN python -m venv /opt/k9 && /opt/k9/bin/pip install --no-cache-dir '.[api,workers,flower]'

FROM python:3.13-slim
COPY --from=build /opt/k9 /opt/k9
COPY api/k9_api/up/flowerconfig.py /etc/k9/flowerconfig.py
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/k9 k9
ENV PATH=/opt/k9/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    K9_STATE_DIR=/var/lib/k9
USER k9
WORKDIR /var/lib/k9
EXPOSE 8765
# SIGTERM is a warm stop for all of them; leave a worker 30 s (stop_grace_period) to end its jobs.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "k9_api"]
