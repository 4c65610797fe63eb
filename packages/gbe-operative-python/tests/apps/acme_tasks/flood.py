"""Prints as many lines of 1,000 bytes as it is told to."""

import sys

from gbe_operative_python import write_result

lines = int(sys.argv[2])
for _ in range(lines // 100):
    sys.stdout.write(("x" * 999 + "\n") * 100)
write_result(lines)
