#!/bin/sh
# Make a virtual environment: venv.sh PYTHON TARGET
set -eu

python=$1
target=$2
here=$(dirname "$0")

if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; name one with: make setup PYTHON=/path/to/python" >&2
    exit 1
fi

# Debian keeps what fills a new environment in a package of its own.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$here/apt-install.sh" "python$version-venv"
fi

# An environment without pip is what an earlier attempt left behind when it was cut short.
if [ ! -x "$target/bin/pip" ]; then
    "$python" -m venv --clear "$target"
fi
