# One image for the head, the workers and the submitter of a job, and for `docker run` on a single machine.
#
#   make image                                            # torch from PyPI, with CUDA
#   make image TORCH_INDEX_URL=…/whl/cpu                  # torch from PyTorch's index of CPU wheels
#   docker run --rm lehr:0.1.0 lehr run jobs/train.yaml   # trains on the bundled digits
#
# Build arguments:
#   PYTHON_IMAGE     the base image, with Python 3.11 to 3.13
#   PIP_INDEX_URL    the package index; by default pip's own setting
#   TORCH_INDEX_URL  the index for torch and torchvision, which decides between CPU and GPU; by default PIP_INDEX_URL
#   EXTRAS           extras of lehr to install; with s3 and gs, Ray fetches a user's own modules from a bucket
#   PACKAGES         additional Debian packages, such as g++ for train.compile
#   VERSION, REVISION, CREATED   for the labels

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG PIP_INDEX_URL
ARG TORCH_INDEX_URL
ARG EXTRAS=s3,gs
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /venv
WORKDIR /build
COPY constraints.txt ./
RUN /venv/bin/pip install -c constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision
# All dependencies, with an empty lehr: a new version of lehr is built and pulled without this layer. Files that no job
# reads are removed: tests, headers and libraries to compile against, Ray's Java and C++ parts.
COPY pyproject.toml ./
RUN mkdir -p platform/lehr && touch platform/lehr/__init__.py README.md LICENSE \
    && /venv/bin/pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && cd /venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/test torch/lib/*.a torch/bin/protoc* torch/bin/*test* \
        pyarrow/include pyarrow/tests pandas/tests ray/jars ray/cpp \
    && find . -name '*.pyi' -delete

FROM packages AS build
COPY LICENSE README.md ./
COPY platform ./platform
# platform/lehr/jobs is a link to this folder, from which lehr new copies.
COPY jobs ./jobs
RUN /venv/bin/pip wheel --no-deps --wheel-dir /wheel .

FROM ${PYTHON_IMAGE}
ARG PACKAGES
# wget is for KubeRay's probes, procps for the hooks that let a job save before its pod ends.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash procps wget $PACKAGES \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home --shell /bin/bash lehr \
    # A login shell resets PATH, and KubeRay may be configured to start one.
    && echo 'PATH="/venv/bin:$PATH"' > /etc/profile.d/lehr.sh
COPY --from=packages /venv /venv
COPY --from=build /wheel /wheel
RUN /venv/bin/pip install --no-deps --no-index --no-cache-dir --force-reinstall /wheel/*.whl
COPY jobs /home/lehr/jobs
# The root file system may be read-only, so everything is written to /tmp.
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    LEHR_STORAGE=/tmp/runs \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/lehr
CMD ["lehr", "--help"]
# Last, since they differ from build to build.
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="lehr" \
      org.opencontainers.image.description="The practice of training neural networks, as jobs on Ray" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
