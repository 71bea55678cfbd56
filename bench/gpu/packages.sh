#!/bin/bash
# Collect what bench/gpu/all.sh needs on a machine that has CUDA, a C compiler,
# CMake, ninja and Python, but no package registry: the Debian packages of the
# libraries that magmax is built from, with all that those load. It runs where
# there is apt (no root needed); the folder then travels with the source.
#
#   bench/gpu/packages.sh [--to DIR]     default: build/gpu-packages
#
# DIR gets the .deb files and SHA256SUMS. The script checks that every library
# that one of them asks for is in another, or belongs to every machine with a
# compiler, and that folder and source together stay under 60 MB, the size that
# may travel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'packages: %s\n' "$*" >&2; }

to=build/gpu-packages
most_bytes=60000000
while [ $# -gt 0 ]; do
    case $1 in
    --to) to=${2:?--to needs a folder}; shift ;;
    --help | -h) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "unknown argument '$1'; see --help"; exit 2 ;;
    esac
    shift
done
if ! command -v apt-get >/dev/null; then
    say "needs apt-get: run this on a Debian 12 machine and copy its folder"
    exit 1
fi

# Headers, link names and pkg-config's files; cmocka for the tests.
packages=(
    libopenmpi-dev libhdf5-openmpi-dev libdnnl-dev libjansson-dev libzip-dev
    libdeflate-dev zlib1g-dev libpcre2-dev libunistring-dev
    libjpeg62-turbo-dev libpng-dev libwebp-dev libnetpbm-dev libcmocka-dev
    pkgconf-bin libpkgconf3
)
# The libraries themselves, and mpirun.
packages+=(
    openmpi-bin openmpi-common libopenmpi3 libpmix2 libhwloc15 libmunge2
    libevent-core-2.1-7 libevent-pthreads-2.1-7 libudev1
    libhdf5-openmpi-103-1 libaec0 libsz2 libdnnl2 ocl-icd-libopencl1
    libjansson4 libzip4 libdeflate0 zlib1g libpcre2-8-0 libunistring2
    libjpeg62-turbo libpng16-16 libwebp7 libwebpdemux2 libnetpbm11 libcmocka0
)
# HDF5 loads libcurl and OpenSSL, which load the rest.
packages+=(
    libcurl4 libssl3 libbrotli1 libbz2-1.0 libcom-err2 libffi8 libgmp10
    libgnutls30 libgssapi-krb5-2 libhogweed6 libidn2-0 libk5crypto3
    libkeyutils1 libkrb5-3 libkrb5support0 libldap-2.5-0 libnettle8
    libnghttp2-14 libp11-kit0 libpsl5 librtmp1 libsasl2-2 libssh2-1 libtasn1-6
    libzstd1 liblzma5
)

mkdir -p "$to"
rm -f "$to"/*.deb "$to"/SHA256SUMS
log=$(mktemp)
trap 'rm -rf "$log" "${scratch:-}"' EXIT
if ! (cd "$to" && apt-get -q -o Acquire::Retries=3 download "${packages[@]}") \
    >"$log" 2>&1; then
    cat "$log" >&2
    say "apt-get download failed; are its lists there (apt-get update)?"
    exit 1
fi
(cd "$to" && sha256sum -- *.deb >SHA256SUMS)

scratch=$(mktemp -d)
python3 bench/gpu/prefix.py "$to" "$scratch/prefix" --check

n_packages=$(find "$to" -name '*.deb' | wc -l)
packages_bytes=$(cat "$to"/* | wc -c)
source_bytes=$(git archive HEAD | wc -c)
total=$((packages_bytes + source_bytes))
printf '%d packages, %d bytes; source %d bytes; together %d of %d\n' \
    "$n_packages" "$packages_bytes" "$source_bytes" "$total" "$most_bytes"
if [ "$total" -gt "$most_bytes" ]; then
    say "too large to travel"
    exit 1
fi
