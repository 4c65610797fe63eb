"""What holds for every test of the workspace."""

import os
import signal

from hypothesis import settings

# No deadline: a busy machine is no reason to fail. In CI the examples are the same every time.
settings.register_profile("gbe", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("gbe")

# A shell starts `make test &` with SIGINT ignored, and so would everything be that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
