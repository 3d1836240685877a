"""One URL for two clients: what redis-py and Celery would read differently is refused or made equal."""

from __future__ import annotations

import ssl

import pytest
from kombu import Connection

from k9_broker.errors import ConfigurationError
from k9_broker.settings import Settings, load_settings
from k9_workers.app import celery_url


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("unix:///run/redis.sock", "redis://"),
        ("localhost:6379", "redis://"),
        ("redis://h:6379?db=3", "redis://host:6379/3"),
        ("redis://h:6379/3?health_check_interval=5", "only ssl_ options"),
    ],
)
def test_what_celery_cannot_read_is_refused_with_the_fix(url: str, fix: str) -> None:
    with pytest.raises(ConfigurationError, match=fix):
        load_settings(redis_url=url)


def test_the_password_in_the_url_is_not_shown() -> None:
    assert "sesame" not in repr(Settings(redis_url="redis://:sesame@h:6379/0"))


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        ("rediss://h:6379/0", True),
        ("rediss://h:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem", True),
        ("rediss://h:6379/0?ssl_cert_reqs=none", False),
    ],
)
def test_celery_verifies_certificates_unless_told_otherwise(url: str, verified: bool) -> None:
    with Connection(celery_url(url)) as connection:
        assert (connection.ssl["ssl_cert_reqs"] == ssl.CERT_REQUIRED) is verified


def test_a_url_without_tls_stays_as_it_is() -> None:
    assert celery_url("redis://:p%40s@h:6379/3") == "redis://:p%40s@h:6379/3"
