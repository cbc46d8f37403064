"""Reconcilers: given an object, make it so and say how it went. No kopf, no Kubernetes client, no driver."""
