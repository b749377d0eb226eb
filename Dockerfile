# A container of the broker: one static program, no shell, no root. docs/operations.md says how to run it.
#   docker build -t b2binpay-broker .
FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin b2binpay-broker && mkdir -p /made/run /made/state

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/b2binpay-broker /usr/bin/b2binpay-broker
# A volume that is new takes over whose these are.
COPY --from=build --chown=65532:65532 /made/run /run/b2binpay-broker
COPY --from=build --chown=65532:65532 /made/state /var/lib/b2binpay-broker
# There is no /etc/passwd: the configuration names users by number.
USER 65532:65532
ENTRYPOINT ["/usr/bin/b2binpay-broker"]
CMD ["serve"]
# Whether it answers, which the configuration must allow: unix_user = "65532", allow = ["Admin:GetStatus"]. Not whether it has a
# token: without its upstream it gets well by itself, and a restart would only delay that.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/b2binpay-broker", "status"]
STOPSIGNAL SIGTERM
