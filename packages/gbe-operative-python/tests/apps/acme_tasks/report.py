"""Writes whatever the test asks for where the result belongs."""

import os
import sys
from pathlib import Path

options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
if "--text_ref" in options:
    options["--result"] = '"' + Path(options["--text_ref"]).read_text() + '"'
if "--items" in options:
    options["--result"] = "[" + ",".join(["1234567"] * int(options["--items"])) + "]"
if options.get("--use") == "stdin":
    options["--result"] = '"' + sys.stdin.read() + '"'
os.write(int(os.environ["GBE_RESULT_FD"]), options.get("--result", "").encode())
print("secret in the environment:", os.environ.get("TOKEN"))
print("arguments:", sys.argv[1:])
sys.exit(int(options.get("--code", "0")))
