"""How connections leave this machine: through a proxy or not, and which certificates they trust."""

from dataclasses import dataclass
from functools import cache
from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError
from typing import Self

import httpx2
from pydantic import SecretStr

from app.core.settings import ConfigurationError, Settings


@dataclass(frozen=True)
class Egress:
    """What EGRESS_PROXY and EGRESS_CA_FILE say. The environment's HTTPS_PROXY and SSL_CERT_FILE are not read."""

    proxy: SecretStr | None = None
    """The URL of an HTTP proxy, which may hold a password."""
    certificates: str | None = None
    """Certificates in PEM that are trusted besides those of the system."""

    def ssl_context(self) -> SSLContext:
        """A client's context, which trusts the system's certificates and these. All clients of this process share it:
        reading the system's certificates takes 50 ms.
        """
        return shared_ssl_context(self.certificates)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Reads the file of certificates. Raises ConfigurationError where it cannot be used."""
        if settings.egress_ca_file is None:
            return cls(settings.egress_proxy)
        try:
            certificates = settings.egress_ca_file.read_text(encoding="ascii", errors="replace")
            SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
        except SSLError:
            reason = "it holds no certificates in PEM"
        except OSError as error:
            reason = str(error.strerror)
        except ValueError:
            reason = "it is empty"
        else:
            return cls(settings.egress_proxy, certificates)
        raise ConfigurationError(f"EGRESS_CA_FILE cannot be used: {reason}.")


@cache
def shared_ssl_context(certificates: str | None) -> SSLContext:
    """The context for these certificates."""
    context = httpx2.create_ssl_context(trust_env=False)
    if certificates is not None:
        context.load_verify_locations(cadata=certificates)
    return context
