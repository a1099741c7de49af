# edgecount on JetPack 4.6: Nano, TX2, Xavier (TensorRT 8.2, CUDA 10.2; Python 3.8 beside the system's 3.6). From the repository's root, on the device itself or for arm64:
#   docker build -f docker/jetpack4.Dockerfile -t edgecount:jetpack4 .
# Not built by us: see docs/docker.md.
FROM nvcr.io/nvidia/l4t-tensorrt:r8.2.1-runtime AS build
WORKDIR /src
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3.8 python3.8-venv python3.8-dev gcc \
 && rm -rf /var/lib/apt/lists/*
COPY docker/constraints/jetpack4.txt /constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY edgecount edgecount
COPY plugins plugins
COPY engines engines
COPY systemd systemd
RUN python3.8 -m venv /opt/edgecount \
 && /opt/edgecount/bin/pip install --no-cache-dir --upgrade "pip>=23,<25" \
 && /opt/edgecount/bin/pip install --no-cache-dir -c /constraints.txt . onnx

FROM nvcr.io/nvidia/l4t-tensorrt:r8.2.1-runtime
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3.8 python3.8-distutils \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 990 --user-group --home-dir /var/lib/edgecount --create-home edgecount \
 && usermod --append --groups video edgecount \
 && install -d /etc/edgecount
COPY --from=build /opt/edgecount /opt/edgecount
COPY docker/healthcheck.py /usr/local/lib/edgecount/healthcheck.py
ENV PATH=/opt/edgecount/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/edgecount \
    CUDA_CACHE_PATH=/var/lib/edgecount/cuda \
    NVIDIA_DRIVER_CAPABILITIES=all
USER 990:990
VOLUME /var/lib/edgecount
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 \
    CMD ["python", "/usr/local/lib/edgecount/healthcheck.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["edgecount"]
CMD ["run", "-c", "/etc/edgecount/edgecount.yaml"]
