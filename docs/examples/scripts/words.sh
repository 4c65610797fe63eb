words() { tr -cs '[:alpha:]' '\n' | tr '[:upper:]' '[:lower:]' | grep .; }
without() {
  if [ "$#" -eq 0 ]; then cat; else grep -vx "$(printf '%s\n' "$@")"; fi
}
