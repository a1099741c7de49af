# edgecount on a CPU (x86-64 or arm64). From the repository's root:
#   docker build -f docker/cpu.Dockerfile -t edgecount:cpu .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY docker/constraints/cpu.txt /constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY edgecount edgecount
COPY plugins plugins
COPY engines engines
COPY systemd systemd
RUN python -m venv /opt/edgecount \
 && /opt/edgecount/bin/pip install --no-cache-dir -c /constraints.txt .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 990 --user-group --home-dir /var/lib/edgecount --create-home edgecount \
 && install -d /etc/edgecount
COPY --from=build /opt/edgecount /opt/edgecount
COPY docker/healthcheck.py /usr/local/lib/edgecount/healthcheck.py
ENV PATH=/opt/edgecount/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/edgecount
USER 990:990
VOLUME /var/lib/edgecount
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "/usr/local/lib/edgecount/healthcheck.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["edgecount"]
CMD ["run", "-c", "/etc/edgecount/edgecount.yaml"]
