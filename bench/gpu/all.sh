#!/bin/bash
# Everything that only a GPU can show, on a machine that has one: build, test,
# sanitize, time. Each stage ends within nine minutes; one that was cut off goes
# on where it stopped when the same command is given again, and what has a result
# is not run twice.
#
#   bench/gpu/all.sh [OPTION...] [STAGE...]      default: all four stages
#
#   build     the libraries of --packages into a prefix, magmax with CUDA
#   test      op tests in fp32, tf32 and bf16, full-size towers, training and
#             evaluation against the golden numbers, on the GPU
#   sanitize  compute-sanitizer's tools over the op tests
#   time      the card's own limits; every op; attention and training steps beside
#             PyTorch's; merging
#
#   --out DIR       copy the results there after every step: results.jsonl, and
#                   gpu-results.md made from it
#   --work DIR      builds and results (default: build/gpu)
#   --packages DIR  from bench/gpu/packages.sh (default: build/gpu-packages);
#                   "none" takes the libraries that the machine has
#   --limit S       seconds a stage may take (default: 520)
#   --jobs N        tests, or compilers, at once (default: the cores)
#   --only PATTERN  only steps whose name has this regular expression in it
#   --again         forget the results of the stages named
#   --emulate       a rehearsal without a GPU: kernels/cuda run by the CPU, tiny
#                   sizes; its results say so and are no measurements
#
# bench/gpu/packages.sh collects the packages beforehand, where there is a
# network. docs/gpu-results.md is made by: bench/gpu/report.py RESULTS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case " $* " in
*" --help "* | *" -h "*) sed -n '2,33s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
exec "${PYTHON:-python3}" bench/gpu/stages.py "$@"
