#!/usr/bin/env bash
# with_python.sh PACKAGE,PACKAGE SCRIPT [ARGUMENT...]: runs a script with the first Python that has the packages:
# MDM_WEB_PYTHON, .cache/web (scripts/setup.sh --dev), python3, the system's. Exit code 77, which skips, without one.
set -euo pipefail
packages="$1"
shift
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
for python in "${MDM_WEB_PYTHON:-}" "$root/.cache/web/bin/python" python3 /usr/bin/python3; do
  if [[ -n "$python" ]] && "$python" -c "import $packages" 2>/dev/null; then exec "$python" "$@"; fi
done
echo "skipped: no Python has the packages $packages; scripts/setup.sh --dev installs them"
exit 77
