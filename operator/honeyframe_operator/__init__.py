"""The operator: the only code that knows Kubernetes and kopf."""
