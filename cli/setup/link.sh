#!/bin/sh
# Puts the `culvert` command (and `kubectl culvert`, which finds it by its other name) beside the tools that npm scripts and npx find. A package's own
# "bin" is linked for those who depend on it, not for itself.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p node_modules/.bin
for name in culvert kubectl-culvert; do ln -sf ../../cli/culvert "node_modules/.bin/$name"; done
