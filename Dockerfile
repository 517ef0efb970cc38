# The service: docker build -t sseflask . && docker run -p 8000:8000 -e SSEFLASK_SECRET sseflask
# More of it, and what a proxy in front has to do: docs/deploy.md and compose.yaml.

FROM python:3.13-slim AS build

WORKDIR /src
RUN python -m venv /opt/sseflask
ENV PATH=/opt/sseflask/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# What it needs changes less often than what it is: a layer of its own, without the code.
COPY requirements.txt setup.cfg pyproject.toml ./
RUN pip install --requirement requirements.txt

COPY README.md LICENSE ./
COPY sseflask ./sseflask
RUN pip install --no-deps .


FROM python:3.13-slim

COPY --from=build /opt/sseflask /opt/sseflask

# Channels and completions are kept here: without a volume they are gone with the container. A new
# volume takes over the owner. A number, so that a platform can see that it is not root.
RUN mkdir -m 0700 /var/lib/sseflask && chown 10001:10001 /var/lib/sseflask
VOLUME /var/lib/sseflask
USER 10001:10001
WORKDIR /var/lib/sseflask

# Where PORT is set the service listens on all addresses; platforms set another one.
ENV PATH=/opt/sseflask/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PORT=8000 \
    SSEFLASK_CHANNEL_LOG=/var/lib/sseflask/channels.sqlite3 \
    SSEFLASK_RUN_LOG=/var/lib/sseflask/runs.sqlite3
EXPOSE 8000

HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]

# It becomes gunicorn, which gets SIGTERM itself. Then streams have SSEFLASK_GRACE seconds (25): stop
# it with docker stop -t 30, or run it with --stop-timeout 30, as Docker kills after 10.
CMD ["sseflask", "serve"]
