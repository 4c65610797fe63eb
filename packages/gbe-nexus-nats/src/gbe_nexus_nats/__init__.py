"""The nexus contracts over NATS JetStream, with an embedded server on request."""
