"""What `python -m acme_tasks.resize_image` does in tests."""

import argparse
import os
import sys

from gbe_operative_python import write_result

parser = argparse.ArgumentParser()
parser.add_argument("--path", required=True)
parser.add_argument("--width", type=int, default=800)
parser.add_argument("--force", action="store_true")
arguments = parser.parse_args()
print("resizing", arguments.path)
write_result("to be replaced by a shorter one" * 10)
write_result(
    {
        "path": arguments.path,
        "width": arguments.width,
        "force": arguments.force,
        "cwd": os.getcwd(),
        "names": sorted(name for name in os.environ if name != "GBE_GUARDIAN"),
        "path0": sys.path[0],
    }
)
