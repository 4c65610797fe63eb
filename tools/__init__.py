"""What the developers' commands need beyond the tools themselves."""
