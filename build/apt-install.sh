#!/bin/sh
# Install Debian packages by name, or say how.
#
# Root installs at once, others through sudo if it asks for no password. Everyone else gets the
# command to run, because a build must never stop at a password prompt.
set -eu

advice="apt-get install -y --no-install-recommends $*"

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: $* (install them with your package manager, then run this again)" >&2
    exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "missing packages; run this, then try again:" >&2
    echo "    sudo $advice" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# A fresh system has no package lists, an old one has stale lists: both are cured by an update.
# shellcheck disable=SC2086  # $as_root is empty or two words.
$as_root $advice >/dev/null 2>&1 || {
    $as_root apt-get update -qq
    $as_root $advice
}
