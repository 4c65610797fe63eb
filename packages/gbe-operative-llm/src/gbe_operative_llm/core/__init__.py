"""What needs no network: from params to a request, from an answer to an outcome."""
