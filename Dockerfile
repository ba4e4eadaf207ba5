# Watchword as a server of its own: docs/deploy.md says how to run it.
#   docker build --tag watchword .
# No secret is needed to build it, and none is in it.

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir --constraint constraints.txt pip \
 && python -m pip wheel --no-cache-dir --no-deps --build-constraint constraints.txt --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/watchword \
 && python -m pip --python /opt/watchword/bin/python install --no-cache-dir \
      --constraint constraints.txt "$(ls /wheels/watchword-*.whl)[all]"

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin watchword \
 && install --directory --owner=watchword --group=watchword --mode=0700 /data
COPY --from=build /opt/watchword /opt/watchword
ENV PATH=/opt/watchword/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["watchword"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--data", "/data"]
