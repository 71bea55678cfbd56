#!/bin/bash
# Install the Debian packages that magmax needs, where they are missing.
#
#   .ci/install.sh [build] [test] [docs] [demo] [vocabulary] [reference]
#                                        no argument: build
#   .ci/install.sh --list [group ...]    only name the packages
#
# vocabulary: pip, where there is none; .ci/vocabulary.sh then fetches what the
# tokenizer needs.
# reference: PyTorch; .ci/reference.sh then fetches the programs that tests
# compare weights with.
#
# Needs root, or sudo; does nothing, and needs neither, where nothing is
# missing. No service is started or left running.
set -euo pipefail

# build: libc6-dev is named because gcc only recommends it.
# test: libpmix-dev, not libpmix2 alone, because Slurm's srun --mpi=pmix opens
# the unversioned libpmix.so.
declare -A packages=(
    [build]="gcc libc6-dev cmake ninja-build pkg-config
        libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools
        libdnnl-dev libjansson-dev libzip-dev libdeflate-dev zlib1g-dev
        libpcre2-dev libunistring-dev
        libjpeg62-turbo-dev libpng-dev libwebp-dev libnetpbm-dev"
    [test]="g++ libcmocka-dev python3 python3-numpy python3-h5py python3-pil
        python3-torch clang-format clang-tidy clang libclang-rt-dev libomp-dev
        slurmctld slurmd slurm-client munge libpmix2 libpmix-dev"
    [docs]="doxygen"
    [demo]="dataset-fashion-mnist gnuplot-nox jq"
    [vocabulary]="python3 python3-pip"
    [reference]="python3-venv python3-pip python3-torch python3-torchvision"
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'install: %s\n' "$*" >&2; }

usage() {
    sed -n '2,14s/^# \{0,1\}//p' "$0"
}

list_only=no
groups=()
for argument in "$@"; do
    case $argument in
    --help | -h) usage; exit 0 ;;
    --list) list_only=yes ;;
    build | test | docs | demo | vocabulary | reference) groups+=("$argument") ;;
    *)
        say "unknown group '$argument'; known: build, test, docs, demo," \
            "vocabulary, reference"
        exit 2
        ;;
    esac
done
if [ "${#groups[@]}" -eq 0 ]; then
    groups=(build)
fi

wanted=()
follow_ups=()
for group in "${groups[@]}"; do
    if [ "$group" = vocabulary ] && [ "$list_only" = no ]; then
        follow_ups+=("$here/vocabulary.sh")
        if "$here/vocabulary.sh" --ready; then continue; fi
    fi
    if [ "$group" = reference ] && [ "$list_only" = no ]; then
        follow_ups+=("$here/reference.sh")
    fi
    read -r -d '' -a names <<<"${packages[$group]}" || true
    wanted+=("${names[@]}")
done

# What comes after the packages.
follow_up() {
    local script
    for script in "${follow_ups[@]}"; do
        "$script"
    done
}

if [ "$list_only" = yes ]; then
    printf '%s\n' "${wanted[@]}" | sort -u
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not a Debian system: install by other means what is missing of" \
        "${wanted[*]}"
    follow_up
    exit 0
fi

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${wanted[@]}"; do
    is_installed "$package" || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    follow_up
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }
    then
        as_root=(sudo)
    else
        say "run this as root: apt-get install --no-install-recommends" \
            "${missing[*]}"
        exit 1
    fi
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
own_policy=no
clean_up() {
    rm -f "$log"
    if [ "$own_policy" = yes ]; then
        "${as_root[@]}" rm -f "$policy"
    fi
}
trap clean_up EXIT

# The tests start Slurm by themselves, in a folder of their own: keep the
# packages from starting the machine's.
if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

apt() {
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" \
        </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        say "apt-get $1 failed; its output is above"
        exit 1
    fi
}

say "installing ${missing[*]}"
apt update
apt install -y --no-install-recommends "${missing[@]}"
follow_up
