"""A bar for each count in `COUNTS`, a JSON object."""

import json
import os

counts = json.loads(os.environ["COUNTS"])
width = max(map(len, counts), default=0)
for word, count in counts.items():
    print(f"{word:<{width}} {'#' * count} {count}")
