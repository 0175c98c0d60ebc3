#!/bin/sh
# Renew the lock files: each requirements.in with its dependencies, by version and hash. Versions change only if
# the .in file requires it, or with --upgrade or --upgrade-package NAME.
set -eu
cd "$(dirname "$0")/.."

lock() {
    name=$1
    shift
    # Lock files contain no --index-url: each machine sets its own package index.
    uv pip compile --quiet --no-config --system-certs --generate-hashes \
        --only-binary :all: --custom-compile-command "make lock" \
        "$name.in" --output-file "$name.txt" "$@"
}

# For any system and processor, and all supported Python versions.
any="--universal --python-version 3.12"
# For Lambda's Python and platform only (cdk_distilled_router/common/functions.py), so that every machine bundles the
# same files.
runtime="--python-version 3.13 --python-platform aarch64-manylinux_2_28"

lock requirements-dev $any "$@"
# The others use the same versions, so that the tested versions are deployed.
lock requirements $any --constraint requirements-dev.txt "$@"
lock operate/requirements $any --constraint requirements-dev.txt "$@"
lock local/requirements $any --constraint requirements-dev.txt "$@"
lock local/requirements-uv $any --constraint requirements-dev.txt "$@"
lock lambda/requirements $runtime --constraint requirements-dev.txt "$@"
lock lambda/evaluation/requirements $runtime --constraint requirements-dev.txt "$@"
lock operate/requirements-node $any "$@"
# In an environment of its own, with the constructs' packages.
lock docs/reference/requirements $any --constraint requirements-dev.txt "$@"
# Each of these has its own environment, because it needs another version of boto3.
lock benchmarks/requirements $any "$@"
lock local/emulator/requirements $any "$@"
lock tests/checks/requirements $any "$@"

# The CDK's command line. This lock file contains no registry address either.
npm=$(python -c 'import shlex; from operate import node; print(shlex.join(node.npm()))')
eval "$npm --prefix operate/cdk-cli install --package-lock-only --omit-lockfile-registry-resolved" \
    --ignore-scripts --no-audit --no-fund --loglevel=error
