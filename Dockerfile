# docker build --target cuda -t hpo:cuda .
# docker build --target cpu -t hpo:cpu --build-arg TORCH_INDEX_URL=... .
#
# TORCH_INDEX_URL   one more package index, for a build of torch other than the default index gives: the
#                   default one carries its own CUDA libraries and also runs on a CPU, only larger.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS package
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hpo hpo
COPY finetune finetune
COPY studies studies
ARG TORCH_INDEX_URL=
RUN python -m venv /opt/hpo \
 && /opt/hpo/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} ".[s3]"

FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS cpu
COPY --from=package /opt/hpo /opt/hpo
# Folders that volumes are put on: a new volume takes the owner of what it covers.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hpo \
 && install --directory --owner hpo --group hpo /cache /data /work
ENV PATH=/opt/hpo/bin:$PATH \
    HOME=/tmp \
    HPO_CACHE=/cache \
    HPO_DATA=/data \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["hpo", "--help"]

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
