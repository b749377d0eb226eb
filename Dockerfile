# A container of the broker: one static program, no shell, no root. docs/operations.md says how to run it.
#   docker build -t b2binpay-broker .
FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin b2binpay-broker

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/b2binpay-broker /usr/bin/b2binpay-broker
# No name: there is no /etc/passwd. Volumes must be this user's: /var/lib/b2binpay-broker, and /run/b2binpay-broker where
# callers of the host meet it at a socket.
USER 65532:65532
ENTRYPOINT ["/usr/bin/b2binpay-broker"]
CMD ["serve"]
# Asks for its own status, which the configuration must allow: unix_user = "65532", allow = ["Admin:GetStatus"].
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/b2binpay-broker", "status", "--ready"]
STOPSIGNAL SIGTERM
