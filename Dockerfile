# One image for CPU and GPU: torch on the default package index is the CUDA build, which runs without a GPU as well.
# It brings its own CUDA libraries; the host needs the NVIDIA driver and container toolkit, and for a CPU neither.

FROM python:3.11-slim-bookworm AS build
# Another package index: docker build --build-arg PIP_INDEX_URL=... ; empty means pip's default.
ARG PIP_INDEX_URL
# One more index: PyTorch's own has builds without CUDA (2.15.0+cpu), which the pins admit. Most of the image is CUDA.
ARG PIP_EXTRA_INDEX_URL
# What stores behind URLs need: docker build --build-arg EXTRAS="s3 gcs"
ARG EXTRAS
WORKDIR /build
RUN python -m venv /opt/flambeau
# The dependencies first, without the code: gigabytes that only a change of these two files downloads again.
COPY constraints.txt pyproject.toml ./
RUN python -c "import os, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = os.environ.get('EXTRAS', '').split(); print(*project['dependencies'], *(each for extra in extras for each in project['optional-dependencies'][extra]), sep='\n')" > dependencies.txt \
    && /opt/flambeau/bin/pip install --no-cache-dir --constraint constraints.txt --requirement dependencies.txt
COPY README.md ./
COPY classifier classifier
COPY app app
RUN /opt/flambeau/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin flambeau \
    && install --directory --owner=10001 /var/cache/flambeau
COPY --from=build /opt/flambeau /opt/flambeau
ENV PATH=/opt/flambeau/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLAMBEAU_HOST=0.0.0.0 \
    FLAMBEAU_PORT=8000 \
    FLAMBEAU_STORE=/models_store \
    FLAMBEAU_CACHE=/var/cache/flambeau
WORKDIR /srv
USER 10001
EXPOSE 8000
# Alive, not ready: a store that is still empty makes a server unready, and no restart would fill it. It asks at the port
# where the server listens, also if that was said with --port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "app.processes.healthcheck"]
CMD ["python", "-m", "app"]
