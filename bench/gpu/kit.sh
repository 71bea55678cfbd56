#!/bin/bash
# What a machine with a GPU needs to test and time magmax, built here, where
# there need not be one: a folder that runs there without compilers, and the
# archive of it that travels. bench/gpu/kit.py says what is in it.
#
#   bench/gpu/kit.sh [OPTION...]
#
#   --out DIR   default: build/gpu-kit, with --emulate build/gpu-kit-emulated;
#               is built in, and gets magmax-gpu-kit, magmax-gpu-kit.tar.xz
#   --emulate   for a rehearsal without a GPU: kernels/cuda run by the CPU;
#               needs no toolkit
#   --jobs N    compilers at once (default: the cores)
#
# There:
#
#   python3 -m tarfile -e magmax-gpu-kit.tar.xz
#   magmax-gpu-kit/run [OPTION...]       the options of bench/gpu/run.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'kit: %s\n' "$*" >&2; }

out=
emulate=no
jobs=$(nproc)
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --emulate) emulate=yes ;;
    --help | -h) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "unknown argument '$1'; see --help"; exit 2 ;;
    esac
    shift
done

if [ "$emulate" = yes ]; then
    out=${out:-build/gpu-kit-emulated}
    cuda=(-DMAGMAX_CUDA=OFF -DMAGMAX_TEST_CUDA=emulated)
else
    out=${out:-build/gpu-kit}
    cuda=(-DMAGMAX_CUDA=ON -DMAGMAX_NCCL=ON -DMAGMAX_TEST_CUDA=gpu)
fi
# DT_RPATH, which, unlike DT_RUNPATH, also holds for what libraries load; and no
# instructions of this machine's processor.
# shellcheck disable=SC2016
cmake -S . -B "$out" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DMAGMAX_WERROR=ON -DMAGMAX_TESTS=ON -DMAGMAX_BENCH=ON -DMAGMAX_BENCH_ARCH=x86-64-v3 \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
    '-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../lib;$ORIGIN/..' \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags \
    -DCMAKE_MODULE_LINKER_FLAGS=-Wl,--disable-new-dtags \
    -DCMAKE_SHARED_LINKER_FLAGS=-Wl,--disable-new-dtags \
    "${cuda[@]}"
ninja -C "$out" -j "$jobs" gpu_kit
exec "${PYTHON:-python3}" bench/gpu/kit.py "$out"
