#!/usr/bin/env bash
# Install the package as a user does, from its metadata without constraints, into a new environment, and use it:
#     bash scripts/check_install.sh [PYTHON]
# A new release of a dependency that breaks the package shows here first.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset VIRTUAL_ENV PYTHONPATH
if [ -n "${1-}" ]; then mkdir "$work/bin"; ln -s "$(command -v "$1")" "$work/bin/python3"; PATH="$work/bin:$PATH"; fi
MARS_VENV=$work/venv
source "$root/scripts/setup.sh" environment
export MARS_CACHE="$work/cache" HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=1  # more threads are slower where other processes use the cores
cd "$work"

step() {  # name, command ...: one line with the time, or the output of a command that fails
  local name=$1 start=$SECONDS; shift
  if ! "$@" >log 2>&1; then cat log >&2; echo "check_install: FAILED at '$name'" >&2; exit 1; fi
  echo "check_install: $name, $((SECONDS-start)) s"
}
versions() { python -c "
import platform; from importlib.metadata import version
packages = 'torch', 'torchaudio', 'numpy', 'librosa'
print('Python', platform.python_version(), *(f'{p} {version(p)}' for p in packages), sep=', ')"; }
step 'pip install .' pip install -q --disable-pip-version-check --no-input "$root"
echo "check_install: $(versions)"
step 'mars generate' mars generate --pitch 60 --family guitar --out notes
step 'mars generate --reference' mars generate --pitch 64 --reference notes/note-0000.wav --out reference
step 'mars evaluate' mars evaluate --data additive --families guitar,flute,organ --pitches 48-63 --velocities 50,100 \
  --n 24 --n-train 100 --seeds 1 --n-resamples 10 --n-f0 2 --n-iter 8 --out report
ls notes/*.wav reference/*.wav report/report.json >/dev/null
