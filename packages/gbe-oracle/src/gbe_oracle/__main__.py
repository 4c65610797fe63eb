"""`python -m gbe_oracle`."""

from gbe_oracle.command import main

main()
