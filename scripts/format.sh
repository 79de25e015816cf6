#!/usr/bin/env bash
# Formatting by .clang-format, with the version that Debian 12 has (others lay code out differently).
# usage: scripts/format.sh [--check | --fix] [FILE...]; without files all sources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

action="${1:---check}"
if [[ $# -gt 0 ]]; then shift; fi
case "$action" in
  --check) options=(--dry-run -Werror) ;;
  --fix) options=(-i) ;;
  *) echo "usage: scripts/format.sh [--check | --fix] [FILE...]" >&2; exit 2 ;;
esac

tool="$(command -v clang-format-14 || command -v clang-format || true)"
if [[ -z "$tool" ]] || ! "$tool" --version | grep -q 'version 14\.'; then
  echo "format: clang-format 14 is missing; run scripts/setup.sh --dev" >&2
  exit 1
fi
if [[ $# -gt 0 ]]; then
  files=("$@")
else
  folders=()
  for folder in include src apps tests bench; do
    if [[ -d "$folder" ]]; then folders+=("$folder"); fi
  done
  mapfile -t files < <(find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) | sort)
fi
"$tool" "${options[@]}" --style=file "${files[@]}"
echo "format: ${#files[@]} files are as .clang-format wants them"
