#!/bin/bash
# Whether the archive of bench/gpu/kit.sh runs on bare machines: roots of Debian
# 12 and 13 with Python, numpy and h5py, and no compiler. Needs root and
# debootstrap; the first time a root takes minutes and a network.
#
#   bench/gpu/try_kit.sh ARCHIVE [SUITE...]      default: bookworm trixie
#
#   --roots DIR     where the roots are, and stay (default: /tmp/magmax-roots)
#   --toolkit DIR   shown to a kit with GPU code, for its cuBLASLt and NCCL
#                   (default: /usr/local/cuda; "none" leaves that out)
#
# In each root it checks that every program and module finds its libraries, all
# in the kit but for glibc (and NVIDIA's), and runs programs, tests on the CPU,
# two ranks, training against the golden numbers, and of an emulated kit tests of
# the device cuda.
set -euo pipefail
shopt -s nullglob # an emulated kit has no lib/magmax

say() { printf 'try_kit: %s\n' "$*" >&2; }

# ---- in the root ------------------------------------------------------------

step() {
    local log=/tmp/step.log
    if "${@:2}" >"$log" 2>&1; then
        printf '  ok      %s\n' "$1"
    else
        printf '  FAILED  %s: %s\n' "$1" "${*:2}"
        sed 's/^/    /' "$log"
        exit 1
    fi
}

no_compilers() {
    local program
    for program in gcc cc g++ clang nvcc cmake ninja ctest; do
        if command -v "$program"; then return 1; fi
    done
}

# ldd's lines that are neither of the kit, nor glibc, nor what is allowed.
strangers() {
    ldd bin/magmax_* bin-test/* bin-bench/* lib/magmax/*.so lib/openmpi/mpirun |
        awk -v kit="$PWD/" -v pattern="$1" '
            / => / && index($3, kit) != 1 && $1 !~ pattern { print; bad = 1 }
            END { exit bad }' |
        sort -u
}

test_of_the_list() {
    python3 -B - "$1" <<'PYTHON'
import json, os, sys
kit = os.getcwd()
tests = {t["name"]: t for t in json.load(open("tests.json"))}
test = tests[sys.argv[1]]
os.environ |= {k: v.replace("@KIT@", kit) for k, v in test["env"].items()}
command = [w.replace("@KIT@", kit) for w in test["command"]]
os.execvp("./exec", ["./exec", *command])
PYTHON
}

golden_runs() {
    MAGMAX_BIN=$PWD/bin MAGMAX_SOURCE=$PWD PYTHONPATH=tests/cli \
        MAGMAX_CUDA_MODULE=none MAGMAX_NCCL_MODULE=none \
        ./exec python3 -B tests/parity/test_runs.py "$@"
}

load_modules() {
    local module
    for module in lib/magmax/*.so; do
        python3 -c 'import ctypes, os, sys
ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)' "$PWD/$module"
    done
}

inside() {
    local libc='^(libc|libm|libdl|librt|libpthread|libresolv)[.]so'
    rm -rf /kit && mkdir /kit && cd /kit
    step "no compilers" no_compilers
    step "unpack" python3 -m tarfile -e /kit.tar.xz .
    cd magmax-gpu-kit
    if [ -e lib/magmax/libmagmax_cuda.so ] && [ -e /usr/local/cuda/lib64 ]; then
        step "NVIDIA's libraries" python3 -B bench/gpu/vendor.py .
        step "the modules load" load_modules
    else
        libc+='|^lib(cublasLt|nccl)[.]so'
    fi
    step "libraries" strangers "$libc"
    step "magmax_train --help" ./exec bin/magmax_train --help
    step "op test on the CPU" ./exec bin-test/op_test_gemm cpu
    step "mpirun -np 2" env MAGMAX_GOLDEN="$PWD/golden" \
        ./exec mpirun --oversubscribe -np 2 bin-test/mpi_test_merge
    step "training and evaluation, one rank" golden_runs \
        Runs.test_run_without_a_launcher_gives_the_bits_of_one_rank
    step "two ranks" golden_runs \
        Runs.test_an_interrupted_run_goes_on_to_the_same_bits
    if [ -e bin-test/libmagmax_cuda_on_cpu.so ]; then
        for name in op.layernorm.cuda.bf16 op.linear.cuda.tf32 \
            mpi.merge.cuda.n2 mpi.reducer.cuda.n2 parity.vit.cuda.bf16; do
            step "$name" test_of_the_list "$name"
        done
    fi
    if ./run --help >/dev/null 2>&1; then
        step "run --list" ./run --list
    fi
}

# ---- outside ----------------------------------------------------------------

# A mount namespace of its own: nothing stays mounted.
try_in() {
    local root=$1 archive=$2 toolkit=$3
    cp "$archive" "$root/kit.tar.xz"
    cp "${BASH_SOURCE[0]}" "$root/try_kit.sh"
    mkdir -p "$root/usr/local/cuda"
    # shellcheck disable=SC2016
    unshare --mount --pid --fork bash -euc '
        mount -t proc proc "$0/proc"
        mount -t tmpfs tmpfs "$0/dev/shm" 2>/dev/null || {
            mkdir -p "$0/dev/shm"; mount -t tmpfs tmpfs "$0/dev/shm"; }
        mount --rbind /sys "$0/sys"
        if [ "$1" != none ]; then
            mount --bind "$(realpath "$1")" "$0/usr/local/cuda"
        fi
        exec chroot "$0" env -i PATH=/usr/bin:/bin:/usr/sbin HOME=/root \
            bash /try_kit.sh --inside' "$root" "$toolkit"
    rm -rf "$root/kit" "$root/kit.tar.xz"
}

make_root() {
    local suite=$1 root=$2
    say "making $root"
    mkdir -p "${root%/*}"
    debootstrap --variant=minbase \
        --include=python3,python3-numpy,python3-h5py "$suite" "$root.new" \
        >"$root.log"
    mv "$root.new" "$root"
}

if [ "${1:-}" = --inside ]; then
    inside
    exit
fi
roots=/tmp/magmax-roots
toolkit=/usr/local/cuda
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --roots) roots=${2:?--roots needs a folder}; shift ;;
    --toolkit) toolkit=${2:?--toolkit needs a folder}; shift ;;
    --help | -h) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) say "unknown option '$1'; see --help"; exit 2 ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
if [ "${#arguments[@]}" -eq 0 ]; then
    say "which archive? See --help"
    exit 2
fi
if [ "$(id -u)" != 0 ]; then
    say "needs root, for chroot"
    exit 1
fi
if [ ! -e "$toolkit" ]; then toolkit=none; fi
suites=("${arguments[@]:1}")
if [ "${#suites[@]}" -eq 0 ]; then suites=(bookworm trixie); fi
for suite in "${suites[@]}"; do
    root=$roots/$suite
    if [ ! -d "$root" ]; then make_root "$suite" "$root"; fi
    printf '%s, Debian %s\n' "$suite" "$(cat "$root/etc/debian_version")"
    try_in "$root" "${arguments[0]}" "$toolkit"
done
