# The image of the agent: one static program, and nothing else. Make the program first, by the project's own release
# build (cargo xtask image --all), which puts it into target/image/<architecture>/. The project's own image is made
# without this file; `cargo xtask image --dockerfile` tells whether both still say the same.
FROM scratch
ARG TARGETARCH=amd64
COPY target/image/${TARGETARCH}/clovisor /clovisor
LABEL org.opencontainers.image.title="Clovisor" \
      org.opencontainers.image.description="Request/response tracing of Kubernetes pods from packets alone" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENTRYPOINT ["/clovisor"]
CMD ["run"]
