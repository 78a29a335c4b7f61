"""The same work over Ray: scoring and training spread over local processes or a cluster."""
