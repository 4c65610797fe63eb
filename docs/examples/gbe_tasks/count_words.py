"""The words of a text on standard input, and how often each is there.

python -m gbe_tasks.count_words --shortest 3 < text
"""

import argparse
import re
import sys
from collections import Counter

from gbe_operative_python import write_result

parser = argparse.ArgumentParser()
parser.add_argument("--shortest", type=int, default=1, help="letters")
arguments = parser.parse_args()

words = Counter(word for word in re.findall(r"\w+", sys.stdin.read().lower()) if len(word) >= arguments.shortest)
print(f"{words.total()} words, {len(words)} different ones")
write_result({"total": words.total(), "words": words})
