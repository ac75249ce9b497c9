#!/bin/sh
# Puts the `culvert` command beside the tools that npm scripts and npx find. A package's own
# "bin" is linked for those who depend on it, not for itself.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p node_modules/.bin
ln -sf ../../cli/culvert node_modules/.bin/culvert
