# Two images from scratch: no shell, no package manager, nothing but static programs and the certificates of public authorities.
#
#   docker build --build-arg VERSION=v1.2.3 -t walbaton .                           the sidecar, and all verbs
#   docker build --build-arg VERSION=v1.2.3 -t walbaton-client --target client .    walbaton-wal alone, for a shared volume
#
# They run as any user, with a read-only root and without capabilities: docs/image.md. Any image with Go, git and ca-certificates may be
# the base; .ci/image makes one from Debian's packages where no registry is at hand.
ARG GOLANG=docker.io/library/golang:1.26

FROM ${GOLANG} AS build
LABEL org.opencontainers.image.source="https://github.com/walbaton/walbaton"
WORKDIR /src
COPY go.mod go.sum ./
COPY archiver archiver
COPY leader leader
COPY sidecar sidecar
ARG VERSION
ENV CGO_ENABLED=0
RUN go build -trimpath -ldflags="-s -w -X main.release=$VERSION" -o /out/ ./sidecar/walbaton-wal && \
    go build -trimpath -ldflags="-s -w -X main.release=$VERSION" -o /out/walbaton ./sidecar

FROM scratch AS client
COPY --from=build /out/walbaton-wal /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/walbaton-wal"]
CMD ["install", "/walbaton"]
ARG VERSION
LABEL org.opencontainers.image.title="walbaton-wal" \
      org.opencontainers.image.description="Copies walbaton-wal, which PostgreSQL runs for every WAL file, into a shared volume" \
      org.opencontainers.image.source="https://github.com/walbaton/walbaton" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"

FROM scratch AS walbaton
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/walbaton /out/walbaton-wal /usr/local/bin/
# A number, which Kubernetes can check against runAsNonRoot. Beside a PostgreSQL it is that one's: --user, runAsUser.
USER 65532:65532
EXPOSE 9847
ENTRYPOINT ["/usr/local/bin/walbaton"]
CMD ["sidecar"]
ARG VERSION
LABEL org.opencontainers.image.title="walbaton" \
      org.opencontainers.image.description="Archives the WAL of a Patroni cluster, without a gap across failovers" \
      org.opencontainers.image.source="https://github.com/walbaton/walbaton" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
