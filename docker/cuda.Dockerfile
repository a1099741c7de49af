# edgecount on x86-64 with an NVIDIA GPU (TensorRT 10.7, CUDA 12.6, Python 3.12). From the repository's root:
#   docker build -f docker/cuda.Dockerfile -t edgecount:cuda .
# Not built by us: see docs/docker.md.
FROM nvcr.io/nvidia/tensorrt:24.12-py3 AS build
WORKDIR /src
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv python3-dev gcc \
 && rm -rf /var/lib/apt/lists/*
COPY docker/constraints/cuda.txt /constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY edgecount edgecount
COPY plugins plugins
COPY engines engines
COPY systemd systemd
RUN python3 -m venv --system-site-packages /opt/edgecount \
 && /opt/edgecount/bin/pip install --no-cache-dir --upgrade "pip>=23,<25" \
 && /opt/edgecount/bin/pip install --no-cache-dir -c /constraints.txt ".[cuda,tensorrt]"

FROM nvcr.io/nvidia/tensorrt:24.12-py3
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
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
