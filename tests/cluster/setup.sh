#!/usr/bin/env bash
# Install what the tests marked `cluster` need, from Debian's packages: an SSH server, Slurm, cron and tools
# for networks. It is quick if all is there. It starts nothing: the tests start and stop their own
# servers, on high ports.
set -euo pipefail
packages=(cron iproute2 munge openssh-client openssh-server slurm-client slurmctld slurmd)
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "tests/cluster/setup.sh: ${missing[*]} can only be installed by root; tests that need them will be skipped" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Start no service of the packages.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
