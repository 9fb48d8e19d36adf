# The tool image in which stages and boot tests run, for engines that can reach a registry.
# Where none can be reached, isokiln makes the same image from a Debian mirror with mmdebstrap.
FROM debian:trixie-slim
COPY packages.list /tmp/packages.list
RUN apt-get update \
    && sed 's/#.*//' /tmp/packages.list \
       | DEBIAN_FRONTEND=noninteractive xargs apt-get install --yes --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt /tmp/packages.list
