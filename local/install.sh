#!/bin/sh
# Create .venv and install one group of packages into it: `install.sh deploy|local|tests|checks`.
# install.py lists the groups.
set -eu
cd "$(dirname "$0")/.."

trap 'exit 130' INT TERM

supported='import sys; sys.exit(sys.version_info < (3, 12))'

# Run each candidate: a version manager may have put a stub on the PATH that only reports a missing version.
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

make_environment() {
    python=$(find_python)
    echo "Creating .venv with $("$python" --version) ($python)"
    rm -rf .venv
    mkdir .venv
    # Remains after an interruption, so that the next run starts again.
    : >.venv/.unfinished
    if ! output=$("$python" -m venv .venv 2>&1); then
        rm -rf .venv
        printf '%s\n' "$output" >&2
        echo "$python can't create virtual environments. On Debian and Ubuntu, install the package python3-venv." >&2
        exit 1
    fi
    rm .venv/.unfinished
}

for folder in . .venv; do
    if [ -e "$folder" ] && [ ! -w "$folder" ]; then
        echo "$(id -un) has no permission to write to $PWD/$folder, where packages are installed. Change its owner, or clone the repository to another folder." >&2
        exit 1
    fi
done
# Before another Python is looked for: make puts .venv/bin first on the PATH.
if [ -e .venv/.unfinished ]; then
    rm -rf .venv
fi
if ! .venv/bin/python -c "$supported" >/dev/null 2>&1; then
    make_environment
fi
exec .venv/bin/python -m local.install "$@"
