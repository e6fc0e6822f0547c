# The images of `cargo xtask images`, for whoever builds with Docker: the same files, written by the same command.
#
#   docker build --target controller --tag ghcr.io/warm-images/controller:0.1.0 .
#   docker build --target agent --tag ghcr.io/warm-images/agent:0.1.0 .

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /warm-images
COPY . .
RUN cargo run --locked --package integration --bin xtask -- images --tree /images

FROM scratch AS controller
LABEL org.opencontainers.image.title="warm-controller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="warm-images" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /images/controller/ /
USER 65532:65532
ENTRYPOINT ["/warm-controller"]

FROM scratch AS agent
LABEL org.opencontainers.image.title="warm-agent" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="warm-images" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /images/agent/ /
USER 0:0
ENTRYPOINT ["/warm-agent"]
