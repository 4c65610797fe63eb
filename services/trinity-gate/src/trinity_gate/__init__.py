"""Trinity Gate: the Operator Service of the Aether engine, with its web page."""
