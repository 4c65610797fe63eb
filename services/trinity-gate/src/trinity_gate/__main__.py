"""`python -m trinity_gate`."""

from trinity_gate.command import main

main()
