"""What holds for every test of the workspace."""

import os

from hypothesis import settings

# No deadline: a busy machine is no reason to fail. In CI the examples are the same every time.
settings.register_profile("gbe", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("gbe")
