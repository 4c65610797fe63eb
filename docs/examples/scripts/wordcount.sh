#!/bin/sh
# The words of standard input that come most often, as JSON: wordcount.sh HOW_MANY [WORD_TO_LEAVE_OUT…]
set -eu
. "$(dirname "$0")/words.sh"
limit=$1
shift
words | without "$@" | sort | uniq -c | sort -k1,1nr -k2 | head -n "$limit" |
  awk 'BEGIN { printf "{" } { printf "%s\"%s\": %d", (NR > 1 ? ", " : ""), $2, $1 } END { print "}" }'
