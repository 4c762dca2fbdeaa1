# syntax=docker/dockerfile:1
# The service, with the versions that the tests run with; torch without CUDA. deploy/compose.yaml runs it.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# What torch depends on comes with the rest: its own index has few versions of it.
RUN pip install --no-cache-dir --no-deps --constraint constraints.txt \
    --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md ./
COPY sfs sfs
COPY models models
COPY service service
RUN pip install --no-cache-dir --only-binary :all: --constraint constraints.txt .

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
# The settings, slices and rows of a project are mounted at /project, and are only read; everything that has
# to outlive the container is in /data.
WORKDIR /project
VOLUME ["/data"]
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-P", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Without -P a project's folder called models or service would be found before ours.
ENTRYPOINT ["python", "-P", "-m", "service"]
# A container is reached through the ports that are published, so it listens on all of its own addresses;
# that others may ask is said where it is run: SLICEWATCH_SERVE_INSECURE=true.
CMD ["up", "--host", "0.0.0.0", "--port", "8000"]
