# syntax=docker/dockerfile:1
# Image of the service, with the dependency versions of the tests and torch without CUDA. See deploy/compose.yaml.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# Dependencies of torch are installed below: the index of torch has few versions of them.
RUN pip install --no-cache-dir --no-deps --constraint constraints.txt \
    --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md ./
COPY sfs sfs
COPY models models
COPY service service
RUN pip install --no-cache-dir --only-binary :all: --constraint constraints.txt '.[otel]'

FROM python:3.11.13-slim-bookworm
LABEL org.opencontainers.image.title="slicewatch" \
      org.opencontainers.image.description="Monitors ML models slice by slice: coverage, accuracy, drift, retraining."
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    HOME=/tmp \
    SLICEWATCH_REGISTRY=/data/registry \
    SLICEWATCH_STORE=/data/store.sqlite3
COPY --from=build /venv /venv
RUN groupadd --gid 10001 slicewatch \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin slicewatch \
    && install --directory --owner=10001 --group=10001 /data /project
# /project: settings, slices and rows of the project, mounted read-only. /data: everything that must outlive the
# container.
WORKDIR /project
VOLUME ["/data"]
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-P", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# -P: a folder models or service in the project must not hide the installed packages.
ENTRYPOINT ["python", "-P", "-m", "service"]
# Published ports reach the container on any of its addresses, so listen on all of them. Running it requires
# a key in /data/keys.json, or SLICEWATCH_SERVE_INSECURE=true and SLICEWATCH_SERVE_WITHOUT_KEYS=true.
CMD ["up", "--host", "0.0.0.0", "--port", "8000"]
