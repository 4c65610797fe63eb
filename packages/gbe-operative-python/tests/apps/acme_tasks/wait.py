"""Without end, with a child that would go on."""

import os
import subprocess
import sys
from pathlib import Path

child = subprocess.Popen(["sleep", "600"])
Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
print("up")
child.wait()
