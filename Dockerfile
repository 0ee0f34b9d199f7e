# The image of `cargo xtask image`, for those who would rather use a container engine: the same files, put together by the
# same command. What differs is the packing (layers, times), so the digest does too.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends musl-tools
WORKDIR /src
COPY . .
# Seconds since 1970, for the bill of materials: git, which would know the time of the commit, is not in the context.
ARG SOURCE_DATE_EPOCH
RUN cargo xtask image --rootfs /rootfs

FROM scratch
COPY --from=build --chown=0:0 /rootfs /
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/dormouse"]
