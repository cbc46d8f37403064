"""Who is who in the control plane: its authority, its servers, its clients and their kubeconfigs."""

import base64
import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.certificates import LOOPBACK_NAMES, Authority, Certificate, key_pem, new_key, public_pem
from hack.files import write_private

# The first address of the service range is the API server's own, by every Kubernetes convention.
SERVICE_RANGE = "10.0.0.0/24"
API_SERVER_NAMES = (*LOOPBACK_NAMES, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1")


class Identities:
    """Makes certificates and writes them where the servers expect them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_file = directory / "ca.crt"
        self._authority = Authority("honeyframe control plane")
        self.ca_file.write_bytes(self._authority.pem)
        tokens = new_key()
        write_private(directory / "service-accounts.key", key_pem(tokens))
        (directory / "service-accounts.pub").write_bytes(public_pem(tokens))
        self._write("apiserver", self._authority.server("kube-apiserver", API_SERVER_NAMES))
        self._write("controller-manager", self._authority.server("kube-controller-manager"))
        self._write("admin", self._authority.client("admin", ["system:masters"]))

    def _write(self, name: str, certificate: Certificate) -> None:
        (self.directory / f"{name}.crt").write_bytes(certificate.certificate)
        write_private(self.directory / f"{name}.key", certificate.key)

    def admin_context(self) -> ssl.SSLContext:
        """What verifies the servers and says that we are the administrator."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.directory / "admin.crt", self.directory / "admin.key")
        return context

    def admin_kubeconfig(self, url: str, path: Path) -> Path:
        """The administrator's kubeconfig."""
        user = {
            "client-certificate-data": _encoded((self.directory / "admin.crt").read_bytes()),
            "client-key-data": _encoded((self.directory / "admin.key").read_bytes()),
        }
        return self._kubeconfig(path, url, "admin", user)

    def client_kubeconfig(self, url: str, path: Path, name: str, groups: Sequence[str]) -> Path:
        """A kubeconfig for a further user, by a certificate of their own."""
        certificate = self._authority.client(name, groups)
        user = {
            "client-certificate-data": _encoded(certificate.certificate),
            "client-key-data": _encoded(certificate.key),
        }
        return self._kubeconfig(path, url, name, user)

    def token_kubeconfig(self, url: str, path: Path, name: str, namespace: str, token: str) -> Path:
        """A kubeconfig for a service account."""
        return self._kubeconfig(path, url, name, {"token": token}, namespace)

    def _kubeconfig(self, path: Path, url: str, name: str, user: dict[str, str], namespace: str = "default") -> Path:
        cluster = {"server": url, "certificate-authority-data": _encoded(self._authority.pem)}
        context = {"cluster": "loopback", "user": name, "namespace": namespace}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "loopback", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "loopback", "context": context}],
            "current-context": "loopback",
        }
        # JSON is YAML, and needs no library.
        return write_private(path, json.dumps(config, indent=2) + "\n")


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
