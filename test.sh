#!/bin/bash
# Build magmax three times, run every test of each build, and print one line of
# totals: "N passed, N failed", with ", N skipped" where tests were skipped.
#
#   ./test.sh               everything; installs missing Debian packages first
#   ./test.sh --no-install  takes what is there
#   ./test.sh --quick       a part, in less than four minutes: the release build
#                           and its fast tests. Leaves out the sanitized build,
#                           fuzzing, and tests labelled "slow"
#   ./test.sh -L fast       further arguments go to ctest (labels: tests/README.md)
#
# Builds stay in build/release, build/sanitize (ASan and UBSan) and build/fuzz
# (libFuzzer), so a second run compiles only what changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '== %s\n' "$*"; }

install=yes
quick=no
ctest_arguments=()
for argument in "$@"; do
    case $argument in
    --help | -h) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --no-install) install=no ;;
    --quick) quick=yes; ctest_arguments+=(-LE slow) ;;
    *) ctest_arguments+=("$argument") ;;
    esac
done

if [ "$install" = yes ]; then
    .ci/install.sh build test docs demo reference
    .ci/install.sh vocabulary || say "tests that need it are skipped"
fi

log=$(mktemp)
used=$(mktemp)
trap 'rm -f "$log" "$used"' EXIT

n_passed=0
n_failed=0
n_skipped=0
# Tests spend much of their time waiting: mpirun alone sleeps for a second or two
# after every program that refuses its input.
jobs=$(($(nproc) * 3))

# Set `core_s` to the core-seconds (user and system) of all that ran so far.
count_core_s() {
    times >"$used" # not in a pipe: a subshell would count its own
    core_s=$(awk -F'[ms ]' 'NR == 2 { printf "%d", 60 * $1 + $2 + 60 * $4 + $5 }' "$used")
}

# quietly COMMAND...: its output only where it fails.
quietly() {
    if ! "$@" >"$log" 2>&1; then
        cat "$log"
        return 1
    fi
}

# add_results FILE: add the totals of ctest's JUnit file.
add_results() {
    local tests failures disabled skipped
    tests=$(attribute tests "$1")
    failures=$(attribute failures "$1")
    disabled=$(attribute disabled "$1")
    skipped=$(attribute skipped "$1")
    n_failed=$((n_failed + failures))
    n_skipped=$((n_skipped + skipped + disabled))
    n_passed=$((n_passed + tests - failures - skipped - disabled))
}

# attribute NAME FILE: that attribute of the file's <testsuite> element.
attribute() {
    sed -n '/<testsuite/,/>/p' "$2" | tr '\n' ' ' |
        sed -n "s/.*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p"
}

# test_build PRESET [OPTION...]: configure, build, run; a build that fails is one failure.
test_build() {
    local preset=$1 build=build/$1 results start=$SECONDS core_s before_s
    count_core_s
    before_s=$core_s
    say "$preset: building"
    if ! quietly cmake --preset "$preset" "${@:2}" ||
        ! quietly cmake --build --preset "$preset"; then
        say "$preset: the build failed"
        n_failed=$((n_failed + 1))
        return
    fi
    count_core_s
    say "$preset: testing (built in $((SECONDS - start)) s," \
        "$((core_s - before_s)) core-seconds)"
    start=$SECONDS
    before_s=$core_s
    results=$PWD/$build/results.xml
    rm -f "$results"
    # Only what did not pass is worth reading.
    { ctest --test-dir "$build" --output-on-failure --parallel "$jobs" \
        --no-tests=error --output-junit "$results" \
        "${ctest_arguments[@]}" 2>&1 || true; } |
        grep --line-buffered -v -E -e '^ +Start +[0-9]+: ' \
            -e '^ *[0-9]+/[0-9]+ Test +#[0-9]+: .*[. *](Passed|Skipped) ' \
            -e '^(Internal ctest|Test project|Label Time|Total Test time)' \
            -e '^(100% tests passed|Errors while running CTest)' \
            -e '^[a-z]+ += .* sec\*proc' -e '^$' || true
    if [ ! -s "$results" ]; then
        say "$preset: ctest did not run"
        n_failed=$((n_failed + 1))
        return
    fi
    add_results "$results"
    count_core_s
    say "$preset: tested in $((SECONDS - start)) s," \
        "$((core_s - before_s)) core-seconds"
}

test_build release -DMAGMAX_WERROR=ON -DMAGMAX_TESTS=ON -DMAGMAX_BENCH=ON
if [ "$quick" = no ]; then
    test_build sanitize -DMAGMAX_TESTS=ON
    test_build fuzz
fi
count_core_s
say "all: $SECONDS s, $core_s core-seconds"
if [ "$quick" = yes ]; then
    say "left out: the sanitized build, fuzzing, tests labelled \"slow\""
fi

total="$n_passed passed, $n_failed failed"
if [ "$n_skipped" -gt 0 ]; then
    total="$total, $n_skipped skipped"
fi
printf '%s\n' "$total"
[ "$n_failed" -eq 0 ] && [ "$n_passed" -gt 0 ]
