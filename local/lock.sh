#!/bin/sh
# Renew the lock files: each requirements.in with all that it brings, by version and hash. A version stays until
# its .in asks for another one, or the command line does: --upgrade, or --upgrade-package NAME.
set -eu
cd "$(dirname "$0")/.."

lock() {
    name=$1
    shift
    # No --index-url gets in: where packages come from is the machine's own business.
    uv pip compile --quiet --no-config --system-certs --generate-hashes \
        --only-binary :all: --custom-compile-command "make lock" \
        "$name.in" --output-file "$name.txt" "$@"
}

# For any system and processor, from the oldest Python that is supported on.
any="--universal --python-version 3.12"
# What travels to Lambda: for its Python alone (cdk_distilled_router/common/functions.py), so every machine bundles the same.
runtime="--python-version 3.13 --python-platform aarch64-manylinux_2_28"

lock requirements-dev $any "$@"
# The others agree with it: what is tested is what is deployed.
lock requirements $any --constraint requirements-dev.txt "$@"
lock operate/requirements $any --constraint requirements-dev.txt "$@"
lock local/requirements $any --constraint requirements-dev.txt "$@"
lock local/requirements-uv $any --constraint requirements-dev.txt "$@"
lock lambda/requirements $runtime --constraint requirements-dev.txt "$@"
lock lambda/evaluation/requirements $runtime --constraint requirements-dev.txt "$@"
lock operate/requirements-node $any "$@"
# Each in an environment of its own: they ask for another boto3.
lock benchmarks/requirements $any "$@"
lock local/emulator/requirements $any "$@"
lock tests/checks/requirements $any "$@"


# The CDK's command line. No address of a registry gets in here either.
npm=$(python -c 'import shlex; from operate import node; print(shlex.join(node.npm()))')
eval "$npm --prefix operate/cdk-cli install --package-lock-only --omit-lockfile-registry-resolved" \
    --ignore-scripts --no-audit --no-fund --loglevel=error
