"""The keys of one start of the local system, which keep other users of this machine out of it.

Whoever reaches the emulator as its root user can run code in a function, as the developer. The file `env` of
the state folder holds these keys, and nothing else does: no argument of a process, no log.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

# The variable with the token, and the header of requests to the servers' control paths.
TOKEN, HEADER = "LOCAL_TOKEN", "x-local-token"

_KEY_CHARACTERS = string.ascii_uppercase + string.digits


@dataclass(frozen=True)
class Keys:
    """The emulator's root key, and the token of the control paths of both servers."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)

    @classmethod
    def create(cls) -> Self:
        """Return new keys."""
        access_key = "AKIA" + "".join(secrets.choice(_KEY_CHARACTERS) for _ in range(16))
        return cls(access_key, secrets.token_hex(20), secrets.token_hex(20))

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Self:
        """Return the keys among the variables of a running system.

        Raises:
            KeyError: An older version has started it: there are none.
        """
        return cls(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], variables[TOKEN])

    def variables(self) -> dict[str, str]:
        """Return the variables that hold them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            TOKEN: self.token,
        }
