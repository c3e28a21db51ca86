# An image of NanoBanana, for a PostgreSQL and a Redis of yours: docs/deploy.md.
#   docker build --tag nanobanana .
#   docker run --read-only --tmpfs /tmp --stop-timeout 120 --publish 127.0.0.1:8000:8000 --env-file nanobanana.env nanobanana
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/nanobanana
COPY backend/requirements.txt .
RUN pip --python /opt/nanobanana/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
  --requirement requirements.txt
COPY backend .
RUN pip --python /opt/nanobanana/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
  --no-build-isolation .

FROM python:3.11-slim-bookworm
# Besides /tmp, only DATA_DIR is written: images, where IMAGE_STORE is disk, and for a while bodies with images in them.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin nanobanana \
  && install --directory --owner=nanobanana --group=nanobanana --mode=0700 /var/lib/nanobanana
COPY --from=build /opt/nanobanana /opt/nanobanana
ENV PATH=/opt/nanobanana/bin:$PATH \
  PYTHONDONTWRITEBYTECODE=1 \
  ENVIRONMENT=production \
  LOG_STREAM=stdout \
  HOST=0.0.0.0 \
  PORT=8000 \
  DATA_DIR=/var/lib/nanobanana
WORKDIR /etc/nanobanana
VOLUME /var/lib/nanobanana
USER 10001:10001
EXPOSE 8000
# /health says that the process answers. Whether it can serve is for what sends it traffic: /ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "-c", "\
import http.client, os, sys; \
connection = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); \
connection.request('GET', '/health'); \
sys.exit(connection.getresponse().status != 200)"]
# What was accepted is answered first: within GENERATION_DEADLINE_SECONDS and half a minute. Give it 120 seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["nanobanana"]
CMD ["serve"]
