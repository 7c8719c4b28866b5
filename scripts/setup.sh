#!/usr/bin/env bash
# Make this clone ready to run:  bash scripts/setup.sh [dev|nb|app|web|fad]
# demo.sh and test.sh source it, which puts `python` and `mars` on PATH. A second run takes a second.
#
# It installs into the active virtual environment if there is one, else into the one in MARS_VENV, else into .venv in
# the clone; it creates the latter two. `environment` in place of an extra creates the environment and installs nothing.

[[ ${BASH_SOURCE[0]} == "$0" ]] && set -euo pipefail
mars_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mars_say() { echo "setup: $*" >&2; }
mars_fail() { mars_say "$*"; exit 1; }
mars_python_fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
# Whether constraints.txt covers this Python
mars_python_is_pinned() { "$1" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' 2>/dev/null; }

mars_apt() {  # install Debian packages as root, or return 1
  command -v apt-get >/dev/null || return 1
  local become=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    become=(sudo)
  fi
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
  {
    ${become[@]+"${become[@]}"} "${apt[@]}" update
    ${become[@]+"${become[@]}"} "${apt[@]}" install -y --no-install-recommends "$@"
  } >/dev/null 2>&1 </dev/null
}

mars_environment() {  # set mars_env to a virtual environment of a Python that fits
  if [ -n "${VIRTUAL_ENV-}" ]; then
    mars_env=$VIRTUAL_ENV
    mars_python_fits "$mars_env/bin/python" ||
      mars_fail "the active environment $mars_env has no Python 3.10 or newer: deactivate it, or use a newer Python."
    return
  fi
  mars_env=${MARS_VENV:-$mars_root/.venv}
  if mars_python_fits "$mars_env/bin/python" && "$mars_env/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  local candidate python='' candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
  [ "$1" != dev ] || candidates=(python3.11 python3.12 python3.10 "${candidates[@]}")
  for candidate in "${candidates[@]}"; do
    if mars_python_fits "$candidate"; then python=$candidate; break; fi
  done
  [ -n "$python" ] || mars_fail "Python 3.10 or newer is needed, and none is on PATH: install one and run this again."
  mars_say "making the virtual environment $mars_env with $("$python" --version)"
  if ! "$python" -m venv --clear "$mars_env" >/dev/null 2>&1; then
    # Debian keeps the module in a package of its own
    local version
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    { mars_apt "python$version-venv" || mars_apt python3-venv; } &&
      "$python" -m venv --clear "$mars_env" >/dev/null 2>&1 ||
      mars_fail "$python cannot create virtual environments: install python$version-venv, or activate an environment."
  fi
}

mars_packages() {  # install mars, editable, with the extra named by $1
  local extra=$1 what=. stamp sum
  [ -z "$extra" ] || what=.[$extra]
  stamp=$mars_env/.mars-setup
  sum=$(cd "$mars_root" && { pwd; cat settings.ini setup.py constraints.txt; } | cksum)
  # The extra `dev` holds all others
  if [ -x "$mars_env/bin/mars" ] && grep -qsx -e "$extra: $sum" -e "dev: $sum" "$stamp"; then return; fi
  local args=(install -qq --disable-pip-version-check --no-input --no-compile -e "$what")
  if [ "$extra" = dev ] && mars_python_is_pinned "$mars_env/bin/python"; then args+=(-c constraints.txt); fi
  mars_say "installing mars and what it needs (the first time: about 3 GB to download, mostly torch, and a few minutes)"
  (cd "$mars_root" && "$mars_env/bin/python" -m pip "${args[@]}") </dev/null ||
    mars_fail "pip could not install the packages, see above. Check the network and about 7 GB of free disk, and retry."
  echo "$extra: $sum" >>"$stamp"
}

mars_sounds() {  # FluidR3 and its renderer; optional
  local package missing=()
  if command -v dpkg-query >/dev/null; then
    for package in fluid-soundfont-gm libfluidsynth3; do
      dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    mars_say "installing the instruments: ${missing[*]} (about 130 MB to download)"
    if mars_apt "${missing[@]}"; then return 0; fi
    mars_say "failed; using the small additive synthesiser. For sampled instruments: sudo apt-get install ${missing[*]}"
  elif ! command -v fluidsynth >/dev/null; then
    mars_say "using the small additive synthesiser; for sampled instruments install FluidSynth and a SoundFont."
  fi
}

mars_browser() {  # Chromium, in which tests/test_site.py opens the site; optional
  [ "$1" = dev ] || return 0
  [ -z "${MARS_BROWSER-}" ] || return 0
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  mars_say "installing a browser for the tests of the site: chromium (about 80 MB to download)"
  mars_apt chromium || mars_say "could not; for these tests install Chromium or Chrome, or name one in MARS_BROWSER."
}

mars_environment "${1-}"
if [ "${1-}" != environment ]; then
  mars_packages "${1-}"
  mars_sounds
  mars_browser "${1-}"
fi
export VIRTUAL_ENV=$mars_env PATH="$mars_env/bin:$PATH"
