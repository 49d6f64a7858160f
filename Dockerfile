# One image for the head, the workers and the submitter of a job, and for `docker run` on one machine.
#
#   make image                                                      # plain PyPI wheels of torch: CUDA
#   make image TORCH_INDEX_URL=…/whl/cpu                            # from PyTorch's index of CPU wheels
#   docker run --rm lehr:0.1.0 lehr run jobs/train.yaml                   # trains the bundled digits
#
# Build arguments:
#   PYTHON_IMAGE     the base image, with Python 3.11 to 3.13
#   PIP_INDEX_URL    where packages come from; by default pip's own setting
#   TORCH_INDEX_URL  where torch and torchvision come from, which decides between CPU and GPU; by default as all others
#   EXTRAS           extras of lehr to install: s3 and gs fetch a user's own modules from a bucket
#   PACKAGES         further Debian packages for the image: g++ for train.compile
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
# All that lehr needs, with an empty lehr: a new lehr is built, and pulled, without this layer. Left out is what no
# running job reads: tests, headers and libraries to compile against, Ray's Java and C++ parts.
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
# platform/lehr/jobs is a link to them: lehr new copies from there.
COPY jobs ./jobs
RUN /venv/bin/pip wheel --no-deps --wheel-dir /wheel .

FROM ${PYTHON_IMAGE}
ARG PACKAGES
# wget: KubeRay's probes; procps: the hooks that let a job save before its pod goes.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash procps wget $PACKAGES \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home --shell /bin/bash lehr \
    # A login shell sets PATH anew, and KubeRay may be configured to start one.
    && echo 'PATH="/venv/bin:$PATH"' > /etc/profile.d/lehr.sh
COPY --from=packages /venv /venv
COPY --from=build /wheel /wheel
RUN /venv/bin/pip install --no-deps --no-index --no-cache-dir --force-reinstall /wheel/*.whl
COPY jobs /home/lehr/jobs
# The root file system may be read-only: everything that is written goes to /tmp.
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    LEHR_STORAGE=/tmp/runs \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/lehr
CMD ["lehr", "--help"]
# Last, because they differ from build to build.
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="lehr" \
      org.opencontainers.image.description="The practice of training neural networks, as jobs on Ray" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
