case ${1-} in
  add) shift; add "$@" ;;
  stats) shift; printf '{"count": %d, "sum": %d, "version": "%s"}\n' "$#" "$(add "$@")" "$VERSION" ;;
  version) echo "sums $VERSION" ;;
  *) echo "usage: sums add|stats NUMBER…, sums version" >&2; exit 2 ;;
esac
