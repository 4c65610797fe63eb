"""`python -m gbe_overseer` is `gbe`."""

from gbe_overseer.command import main

main()
