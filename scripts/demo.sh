#!/usr/bin/env bash
# Install missing packages, train MARS at its smallest size and generate notes:
#     bash scripts/demo.sh [options of `mars demo`]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ''
exec mars demo --out demo "$@"
