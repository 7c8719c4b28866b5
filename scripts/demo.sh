#!/usr/bin/env bash
# Install what is missing, train MARS at its smallest size and hear what it makes:  bash scripts/demo.sh [options of `mars demo`]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ''
exec mars demo --out demo "$@"
