#!/bin/bash
# Make the Python environment whose programs the tests compare with: the real
# open_clip and transformers, on Debian's torch. Where it is missing those tests
# are skipped.
#
#   .ci/reference.sh            make it, or leave it where it is complete
#   .ci/reference.sh --where    only print its folder
#
# It lies in $MAGMAX_REFERENCE, or else in ~/.cache/magmax/reference (0.2 GB).
# Needs python3-venv, python3-torch and python3-torchvision, and PyPI; where
# that cannot be reached it says so and succeeds, without an environment.
set -euo pipefail

say() { printf 'reference: %s\n' "$*" >&2; }

folder=${MAGMAX_REFERENCE:-${XDG_CACHE_HOME:-$HOME/.cache}/magmax/reference}
case ${1:-} in
--where) echo "$folder"; exit 0 ;;
--help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
'') ;;
*) say "unknown argument '$1'; see --help"; exit 2 ;;
esac

# Everything is pinned, and nothing else comes along: --no-deps.
packages=(
    open_clip_torch==2.30.0 timm==0.9.16 ftfy==6.1.3
    transformers==4.37.2 tokenizers==0.15.2 huggingface_hub==0.20.3
    safetensors==0.4.5 regex==2023.12.25 wcwidth==0.2.13 tqdm==4.66.2
    filelock==3.13.1 fsspec==2024.2.0 packaging==23.2
    typing_extensions==4.9.0 pyyaml==6.0.1 requests==2.31.0
    certifi==2024.2.2 charset_normalizer==3.3.2 idna==3.6 urllib3==2.0.7
)

# Complete, and of these versions.
done_file=$folder/packages
if [ -x "$folder/bin/python" ] && [ -f "$done_file" ] &&
    [ "$(cat "$done_file")" = "${packages[*]}" ]; then
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
rm -f "$done_file"
mkdir -p "$(dirname "$folder")"
if ! /usr/bin/python3 -m venv --clear --system-site-packages "$folder" \
    >"$log" 2>&1; then
    cat "$log" >&2
    say "cannot make $folder: python3-venv is needed"
    exit 1
fi
say "installing ${packages[*]}"
if ! "$folder/bin/python" -m pip install -q --disable-pip-version-check \
    --no-input --retries 2 --timeout 20 --no-deps "${packages[@]}" \
    >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    say "the packages could not be had (is PyPI reachable?): tests with" \
        "open_clip will be skipped"
    rm -rf "$folder"
    exit 0
fi
printf '%s' "${packages[*]}" >"$done_file"
