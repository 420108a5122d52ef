# The image for GPU runners: `docker build .`, or `docker build --target vllm .` on vLLM's own.
#
# --build-context bundle=DIR puts in what `gate bundle -o DIR` packed for hosts without a network.
# --build-arg PIP_INDEX_URL=... and PIP_CERT=... serve an index or a proxy of your own; neither
# stays in the image.

# torch's wheels bring CUDA's libraries; from the base comes how the host's driver gets in.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG VLLM_IMAGE=vllm/vllm-openai:v0.33.0

FROM scratch AS bundle
WORKDIR /

FROM ${BASE_IMAGE} AS wheel
ARG PIP_INDEX_URL
ARG PIP_CERT
# Not pinned: a distribution's archive keeps one version of each, and the base decides which.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /build \
    && /build/bin/pip install --require-hashes -r image/build.lock \
    && /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && cp -r image /wheels/image

FROM ${VLLM_IMAGE} AS vllm
ARG PIP_INDEX_URL
ARG PIP_CERT
ARG UID=10001
USER 0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    sh /wheels/image/install.sh "$UID" vllm.lock
COPY --from=bundle / /opt/quant-gate/bundle/
ENV PATH=/opt/quant-gate/bin:$PATH \
    HOME=/cache \
    USER=gate \
    HF_HOME=/cache/huggingface \
    QUANT_GATE_CACHE=/cache/quant-gate
LABEL org.opencontainers.image.title="quant-gate on vLLM" \
    org.opencontainers.image.description="The quality gate for quantized LLM checkpoints" \
    org.opencontainers.image.source="https://github.com/org/quant-gate" \
    org.opencontainers.image.licenses="Apache-2.0"
VOLUME /cache
WORKDIR /workspace
USER ${UID}
ENTRYPOINT ["gate"]
CMD ["--help"]

FROM ${BASE_IMAGE} AS gate
ARG PIP_INDEX_URL
ARG PIP_CERT
ARG UID=10001
# Empty where the base has torch already.
ARG TORCH_LOCK=torch.lock
# Not pinned: a distribution's archive keeps one version of each, and the base decides which.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git git-lfs python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    sh /wheels/image/install.sh "$UID" eval.lock "$TORCH_LOCK"
COPY --from=bundle / /opt/quant-gate/bundle/
ENV PATH=/opt/quant-gate/bin:$PATH \
    HOME=/cache \
    USER=gate \
    HF_HOME=/cache/huggingface \
    QUANT_GATE_CACHE=/cache/quant-gate
LABEL org.opencontainers.image.title="quant-gate" \
    org.opencontainers.image.description="The quality gate for quantized LLM checkpoints" \
    org.opencontainers.image.source="https://github.com/org/quant-gate" \
    org.opencontainers.image.licenses="Apache-2.0"
VOLUME /cache
WORKDIR /workspace
USER ${UID}
ENTRYPOINT ["gate"]
CMD ["--help"]
