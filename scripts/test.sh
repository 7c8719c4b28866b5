#!/usr/bin/env bash
# Install what is missing and run every test:  bash scripts/test.sh
# It works on uncommitted changes as well: it compares files before and after, and asks nothing of git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SECONDS=0
step() { current=$1; echo; echo "== $1 (${SECONDS} s so far)"; }
fail() { echo "$1" >&2; exit 1; }
finish() {
  local status=$?
  kill $(jobs -p) 2>/dev/null || true
  rm -rf "$tmp"
  [ "$status" = 0 ] || echo "scripts/test.sh: FAILED at '$current'" >&2
}
tmp=$(mktemp -d)
current=start
trap finish EXIT

sums() {
  find mars nbs README.md -type f ! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*' -exec cksum {} + |
    sort -k 3
}
unchanged() {  # stop if a file of mars/ or nbs/ or README.md is another than before; $1 says what to do
  sums >"$tmp/after"
  diff "$tmp/before" "$tmp/after" || fail "$1"
}
status() { git status --porcelain 2>/dev/null || true; }

step 'setup'
source scripts/setup.sh dev
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MARS_CACHE="$tmp/cache"
# Where Python is told to write no bytecode, as in many containers, every process compiles all of torch again: 3 to 7 s
if [ -n "${PYTHONDONTWRITEBYTECODE-}" ]; then
  unset PYTHONDONTWRITEBYTECODE
  export PYTHONPYCACHEPREFIX="$tmp/bytecode"
fi
# Keep freed memory in the process: returning big blocks to the system and faulting them in again took a tenth to a
# quarter of the time of the training tests
export MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456
sums >"$tmp/before"
status >"$tmp/status"

step 'nbdev_export: the modules are those of the notebooks'
nbdev_export
unchanged 'The modules were out of date. nbdev_export has now written them: look at the difference and commit it.'

step 'nbdev_clean: the notebooks hold no noise'
nbdev_clean
unchanged 'The notebooks held execution counts or metadata. nbdev_clean has now removed them: commit the difference.'

step 'nbdev_readme: README.md is that of nbs/index.ipynb'
# librosa's pYIN is compiled and cached at first use; two processes that do so at once leave a corrupt cache file.
# One core does that while README.md is made, and builds the site while the notebooks run.
python -c 'import torch; from mars.eval import f0; f0(torch.sin(torch.arange(16000)*.1))' &
pyin=$!
# Always by the stand-in, so that the file does not depend on who has Quarto
rm -rf _proc _docs
PATH="$PWD/tests/bin:$PATH" nbdev_readme
unchanged 'README.md was out of date. It is now made from nbs/index.ipynb: commit the difference.'
wait "$pyin" || fail 'pYIN, which measures the pitch, does not run: see above.'

site=$PATH
command -v quarto >/dev/null || site=$PWD/tests/bin:$PATH
PATH=$site nbdev_docs >"$tmp/docs" 2>&1 &
docs=$!
step 'nbdev_test: every notebook runs'
nbdev_test --n_workers 2

step 'nbdev_docs: the site is built'
wait "$docs" || { cat "$tmp/docs"; fail 'nbdev_docs failed, see above.'; }
cat "$tmp/docs"
[ -s _docs/index.html ] || fail 'nbdev_docs left no _docs/index.html.'
unchanged 'nbdev_docs changed a tracked file: commit the difference.'

step 'pytest'
# One process per file runs its fixtures once; the order of conftest.py starts the longest files first
python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests
current='no stray files'
status >"$tmp/status-after"
diff "$tmp/status" "$tmp/status-after" || fail 'The run left files behind, or changed some: they stand above.'
