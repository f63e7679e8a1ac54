"""librdkafka's security settings in Faust's words, so that one set of options serves every client."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust import SASLCredentials, SSLCredentials

from schemas.errors import ConfigurationError

_PLAIN_PROTOCOLS = ("PLAINTEXT", "SASL_PLAINTEXT")
_PROTOCOLS = (*_PLAIN_PROTOCOLS, "SSL", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def make_credentials(options: Mapping[str, str]) -> Any:
    """Give Faust's credentials for librdkafka options; None for an open broker."""
    protocol = options.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in _PROTOCOLS:
        raise _refuse("security.protocol", protocol, _PROTOCOLS)
    context = None if protocol in _PLAIN_PROTOCOLS else _make_context(options)
    if not protocol.startswith("SASL_"):
        return None if context is None else SSLCredentials(context=context)
    mechanism = options.get("sasl.mechanisms") or options.get("sasl.mechanism") or "PLAIN"
    if mechanism not in _MECHANISMS:
        raise _refuse("sasl.mechanism", mechanism, _MECHANISMS)
    return SASLCredentials(
        username=options.get("sasl.username", ""),
        password=options.get("sasl.password", ""),
        mechanism=mechanism,
        ssl_context=context,
    )


def _make_context(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
    if certificate := options.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    if options.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if options.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refuse(key: str, value: str, allowed: tuple[str, ...]) -> ConfigurationError:
    return ConfigurationError(
        f"the monitor cannot speak {value!r} to Kafka", key=key, remedy=f"Use one of {', '.join(allowed)}"
    )
