# shellcheck shell=bash
# What this folder's scripts have in common: each sources it from the root of the
# source tree.

# As root, in containers.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# bench_help: the comment that the script begins with.
bench_help() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "bench/${0##*/}"
}

bench_refuse() {
    echo "${0##*/}: $*; see --help" >&2
    exit 2
}

# bench_options "NAME ..." ARGUMENT...: set the variable NAME for each
# `--NAME VALUE`; what remains becomes the array `operands`.
bench_options() {
    local known=" $1 "
    shift
    operands=()
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) bench_help; exit 0 ;;
        --*)
            [[ $known == *" ${1#--} "* ]] || bench_refuse "unknown option $1"
            [ $# -ge 2 ] || bench_refuse "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        *) operands+=("$1"); shift ;;
        esac
    done
}

# bench_no_operands: for scripts that have options only.
bench_no_operands() {
    [ "${#operands[@]}" -eq 0 ] || bench_refuse "unexpected '${operands[0]}'"
}

# bench_build TARGET: where --build names no folder, make one with that program.
bench_build() {
    [ -z "$build" ] || return 0
    build=build/bench
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DMAGMAX_BENCH=ON -DMAGMAX_TESTS=OFF >/dev/null
    cmake --build "$build" --target "$1" >/dev/null
}

# bench_folder NAME: a new folder `work` below $folder, gone when the script ends.
bench_folder() {
    mkdir -p "${folder:=${TMPDIR:-/tmp}}"
    work=$(mktemp -d "$folder/magmax-bench-$1.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}
