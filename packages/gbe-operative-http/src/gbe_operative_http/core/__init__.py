"""What needs no network: params, addresses, redirects, contents."""
