"""What Debian's packages bring: programs, and an account for servers that refuse root."""

import contextlib
import grp
import os
import pwd
import shutil
import subprocess

from hack.errors import SetupError
from hack.processes import tail


def apt_get(program: str, mend: str) -> str:
    """The path of apt-get, where we may install with it.

    Args:
        program: what is missing, as a person calls it
        mend: what a person may do about it, the end of a sentence

    Raises:
        SetupError: there is no apt-get, or we are not root
    """
    found = shutil.which("apt-get")
    if found is None or os.geteuid() != 0:
        raise SetupError(f"{program} is missing: {mend}.")
    return found


def install(apt: str, package: str, mend: str) -> None:
    """Install a package without its recommendations, asking nothing.

    Raises:
        SetupError: it did not come
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    keep = ["-o", "Dpkg::Options::=--force-confold"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *keep, package]):
        result = subprocess.run(
            [apt, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        # `update` fails for one broken source of many; what counts is whether the package comes.
        if result.returncode != 0 and arguments[0] == "install":
            raise SetupError(f"The installation of {package} failed ({tail(result.stderr)}): {mend}.")


def account() -> tuple[int, int] | None:
    """User and group id that a server which refuses root runs as; None where we are not root.

    Raises:
        SetupError: there is no such account
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, grp.getgrgid(found.pw_gid).gr_gid
    raise SetupError("PostgreSQL refuses to run as root and there is no user postgres: add one with useradd.")
