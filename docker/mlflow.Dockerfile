# The tracking server of compose.yaml, in the version that the jobs use.
FROM python:3.12-slim-bookworm

WORKDIR /srv
COPY constraints.txt ./
# constraints.txt pins them, which hadolint cannot see.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint constraints.txt mlflow psycopg2-binary \
    && useradd --create-home --uid 1000 mlflow \
    && install --directory --owner mlflow /artifacts

USER 1000
CMD ["mlflow", "server", "--help"]
