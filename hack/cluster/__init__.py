"""A real Kubernetes control plane on loopback, for the demo, the tests and the benchmarks.

`python -m hack.cluster up` starts one that stays; `ControlPlane.start()` one that ends with the process.
"""

from hack.cluster.control_plane import ControlPlane
from hack.errors import SetupError

__all__ = ["ControlPlane", "SetupError"]
