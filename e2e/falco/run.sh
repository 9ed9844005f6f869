#!/usr/bin/env bash
# run.sh FALCO - runs the rules, the drop-in and the built plugin in a real Falco, and its alerts into the built bridge.
# FALCO is the program; a name is looked up on the PATH. `make e2e-falco FALCO=...` builds first and comes here.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ $# -ne 1 ] || ! falco=$(command -v -- "$1"); then
  echo "usage: make e2e-falco FALCO=/path/to/falco (0.41 or newer)" >&2
  exit 2
fi
falco=$(realpath -- "$falco")
bin=${TFDRIFT_BIN:-$root/bin}
for built in tfdrift-bridge libtfdrift.so; do
  if [ ! -e "$bin/$built" ]; then
    echo "e2e-falco: no $built in $bin: run make build" >&2
    exit 2
  fi
done
cd "$root"
TFDRIFT_FALCO=$falco TFDRIFT_BIN=$bin exec go test -count 1 -v -run '^TestRealFalco$' ./e2e/falco
