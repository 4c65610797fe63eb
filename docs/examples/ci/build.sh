#!/bin/sh
# Puts the program together from its parts, which lie beside this script, and prints it.
set -eu
here=$(dirname "$0")
printf '#!/bin/sh\nVERSION=%s\n' "$VERSION"
cat "$here/sums.sh" "$here/main.sh"
