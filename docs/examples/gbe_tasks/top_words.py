"""The most frequent of counted words.

python -m gbe_tasks.top_words --words '{"a": 2}' --number 3
"""

import argparse
import json
from collections import Counter

from gbe_operative_python import write_result

parser = argparse.ArgumentParser()
parser.add_argument("--words", type=json.loads, required=True)
parser.add_argument("--number", type=int, default=10)
arguments = parser.parse_args()

top = Counter(arguments.words).most_common(arguments.number)
for word, count in top:
    print(f"{count:4} {word}")
write_result([word for word, _ in top])
