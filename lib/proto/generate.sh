#!/bin/sh
# Generates lib/proto/gen (or the folder given) from the .proto files beside this script.
set -eu
cd "$(dirname "$0")"
PATH=$PWD/../../node_modules/.bin:$PATH
if [ $# -gt 0 ]; then exec buf generate --output "$1"; fi
rm -rf gen
buf generate
