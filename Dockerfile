# The API, the listeners and the commands. Without the embedded Kafka: it runs beside brokers.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock pyproject.toml docker/runtime_lock.py ./
RUN python runtime_lock.py > runtime.lock \
 && python -m venv --without-pip /opt/shop \
 && pip --python /opt/shop install --only-binary :all: --require-hashes -r runtime.lock
# What builds the package stays in this stage.
RUN python runtime_lock.py hatchling editables > build.lock \
 && pip install --only-binary :all: --require-hashes -r build.lock
COPY README.md ./
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/shop install --no-deps --no-index dist/*.whl

FROM ${PYTHON}
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/shop --no-create-home shop \
 && install -d -o 10001 -g 10001 /var/lib/shop
COPY --from=build /opt/shop /opt/shop
ENV PATH=/opt/shop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SHOP_DATA_DIR=/var/lib/shop
WORKDIR /var/lib/shop
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Of the API; whoever runs another command says what its health is, as docker-compose.yml does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
ENTRYPOINT ["shop"]
CMD ["serve"]
