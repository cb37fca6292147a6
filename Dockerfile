# docker build -t gatelodge . && docker run -p 80:80 -p 443:443 -p 443:443/udp -v gatelodge:/var/lib/gatelodge -v ./gatelodge.toml:/etc/gatelodge/gatelodge.toml:ro gatelodge
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/gatelodge ./cmd/gatelodge
RUN mkdir -p -m 0700 /out/var/lib/gatelodge /out/run/gatelodge /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/ /
USER 65532:65532
ENV HOME=/var/lib/gatelodge XDG_DATA_HOME=/var/lib XDG_RUNTIME_DIR=/run
VOLUME /var/lib/gatelodge
EXPOSE 80 443 443/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/gatelodge"]
CMD ["run", "-c", "/etc/gatelodge/gatelodge.toml"]
