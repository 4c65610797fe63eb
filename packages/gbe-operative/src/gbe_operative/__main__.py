"""`python -m gbe_operative`."""

from gbe_operative.command import main

if __name__ == "__main__":
    raise SystemExit(main())
