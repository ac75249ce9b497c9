# syntax=docker/dockerfile:1
# Agent and ca-server, in one image for linux/amd64 and linux/arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example/culvert:0.1.0 --push .
# Without Docker or a registry: npm run image.

FROM node:26-slim AS packages
WORKDIR /opt/culvert
COPY package.json package-lock.json .npmrc ./
# What only the culvert command needs, and a second Node, stay out. Binaries come as packages: no script has to run.
RUN npm ci --omit=dev --ignore-scripts \
  && rm -rf node_modules/node-linux-* node_modules/@kubernetes node_modules/commander \
  && find node_modules \( -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.map' -o -name '*.md' \) -delete \
  && rm -rf node_modules/.package-lock.json

FROM node:26-slim
# iptables in both backends, and ip for whoever looks around. Nothing else is added, and npm is taken away.
RUN apt-get update \
  && apt-get install -y --no-install-recommends iptables iproute2 \
  && rm -rf /var/lib/apt/lists/* /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /opt/yarn* \
  && groupadd --system --gid 65532 culvert \
  && useradd --system --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin culvert \
  && mkdir -p /var/lib/culvert-ca

WORKDIR /opt/culvert
ENV NODE_COMPILE_CACHE=/opt/culvert/.compile-cache \
  NODE_COMPILE_CACHE_PORTABLE=1 \
  NODE_OPTIONS=--disable-warning=ExperimentalWarning
COPY --from=packages /opt/culvert/node_modules node_modules
COPY package.json LICENSE ./
COPY lib lib
COPY ca-server ca-server
COPY agent agent
# Both programs start from the cache of compiled modules; this also shows that nothing they import was left out.
RUN node agent/main.ts --warm-up && node ca-server/main.ts --warm-up

# The manifests say which program runs, as whom and with which rights.
CMD ["node", "agent/main.ts", "--help"]
