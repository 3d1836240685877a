"""Configuration: one `k9.toml`, every setting overridable by a `K9_…` environment variable.

Read once, at the edge of each process, and passed on as a frozen value. Nested settings use two
underscores: `K9_API__PORT=9000`. Secrets are never in the file: backend keys are named by their
environment variable, API keys come from `K9_API_KEYS`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError
from k9_broker.models import ModelCard
from k9_broker.policy import Aliases, CloudModel, Name, Policy, PrivacyPolicy, Rule, Strategy, TenantPolicy
from k9_broker.requests import Priority
from k9_broker.strategy.builtin import strategies_of

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""What both `logging` and Celery understand."""


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/k9`, or `~/.local/state/k9`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "k9"


class ApiSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    max_body_bytes: int = Field(default=32 * 2**20, ge=1024)
    """Bytes; a larger request body is refused with 413."""


class FlowerSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=5555, ge=0, le=65535)


class JobSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_seconds: float = Field(default=6.0, gt=0.5)
    """A worker that is silent for so long has lost its jobs. Renewed at a quarter of it."""
    max_attempts: int = Field(default=3, ge=1)
    """Claims of one job whose workers died before it becomes a dead letter."""
    max_calls: int = Field(default=3, ge=1)
    """Upstream calls one interactive job may cause, over all its backends: its retries and reroutes."""
    max_calls_batch: int = Field(default=6, ge=1)
    """The same for a batch job."""
    retention_seconds: int = Field(default=24 * 3600, ge=1)
    """How long the record, the result and the relay of an ended job are kept."""

    def most_calls(self, priority: Priority) -> int:
        return self.max_calls if priority is Priority.INTERACTIVE else self.max_calls_batch


class RoutingSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Name = "task-type"
    """The strategy of requests that name none."""
    embedding_model: str | None = Field(default=None, min_length=1)
    """What `auto` embeds with; default: the local embedding model it first found, and that one ever after."""
    strong_above: float = Field(default=0.45, ge=0, le=1)
    """`needs_strong` scores above it ask for a strong model."""
    strong_quality: float = Field(default=0.75, ge=0, le=1)
    """The quality from which a model counts as strong."""
    compare_with: CloudModel | None = None
    """The cloud model that savings are measured by; default: the one a job would have gone to."""


class _File(TomlConfigSettingsSource):
    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        if "api_keys" in found:
            raise ValueError("api_keys are secrets and do not belong in a file; set K9_API_KEYS")
        return found


class Settings(BaseSettings):
    """All of K-9's settings."""

    model_config = SettingsConfigDict(
        env_prefix="K9_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    redis_url: str | None = Field(default=None, repr=False)
    """The ledger and the queues. Without it `k9 up` starts a private server of its own."""
    state_dir: Path = Field(default_factory=default_state_dir)
    """Where `k9 up` keeps its private Redis, logs and the addresses of what runs."""
    embed_model: Path | None = None
    """Folder of the embedding model; default: `models/minilm` in the state folder, if it exists."""
    backends: tuple[Backend, ...] = ()
    """In order of preference. Empty means: discover what runs on this machine."""
    api_keys: str = Field(default="", repr=False)
    """`tenant:key` pairs, comma separated; only from the environment. Empty: anyone may call."""
    models: dict[str, ModelCard] = Field(default_factory=dict)
    """What the operator knows of models, by name, at whatever backend they are."""
    aliases: Aliases = Field(default_factory=dict)
    routing: RoutingSettings = RoutingSettings()
    strategies: tuple[Strategy, ...] = ()
    rules: tuple[Rule, ...] = ()
    privacy: PrivacyPolicy = PrivacyPolicy()
    tenants: dict[str, TenantPolicy] = Field(default_factory=dict)
    """What holds for the API keys of each tenant."""
    api: ApiSettings = ApiSettings()
    flower: FlowerSettings = FlowerSettings()
    jobs: JobSettings = JobSettings()
    log_level: str = "INFO"

    @field_validator("backends")
    @classmethod
    def _names_differ(cls, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        names = [backend.name for backend in backends]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]!r} is used twice; give each backend its own")
        return backends

    @field_validator("redis_url")
    @classmethod
    def _celery_reads_it_too(cls, url: str | None) -> str | None:
        """Celery knows neither redis-py's `unix://` nor its options after the `?`, but for TLS."""
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("the URL must begin with redis:// or, for TLS, rediss://")
        if not all(option.startswith("ssl_") for option in parse_qs(parts.query)):
            raise ValueError("only ssl_ options; the database is in the path, as in redis://host:6379/3")
        return url

    @field_validator("state_dir", "embed_model")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        """A shell turns `~` into the home folder; in `k9.toml` nobody else does."""
        return path.expanduser() if path else path

    @field_validator("log_level")
    @classmethod
    def _known(cls, level: str) -> str:
        if level.upper() not in _LEVELS:
            raise ValueError(f"it must be one of {', '.join(_LEVELS)}")
        return level.upper()

    @field_validator("api_keys")
    @classmethod
    def _each_a_pair(cls, pairs: str) -> str:
        """Half a pair would be an empty key, which every caller without a key has."""
        keys = []
        for pair in filter(str.strip, pairs.split(",")):
            tenant, _, key = map(str.strip, pair.partition(":"))
            if not tenant or not key:
                raise ValueError("K9_API_KEYS must hold TENANT:KEY pairs, comma separated, as in acme:secret")
            keys.append(key)
        if len(set(keys)) < len(keys):
            raise ValueError("K9_API_KEYS has the same key twice; give each tenant its own")
        return pairs

    @model_validator(mode="after")
    def _holds_together(self) -> Settings:
        """Names of strategies are known only when all of them are read."""
        try:
            strategies_of(self.policy)
        except ConfigurationError as error:
            raise ValueError(error.message) from None
        return self

    @property
    def policy(self) -> Policy:
        """All that routing depends on beside the request and the fleet."""
        return Policy(
            **{name: getattr(self.routing, name) for name in RoutingSettings.model_fields},
            strategies=self.strategies,
            rules=self.rules,
            aliases=self.aliases,
            privacy=self.privacy,
            tenants=self.tenants,
            shared=len(set(self.keys.values())) > 1,
        )

    @property
    def keys(self) -> dict[str, str]:
        """API key → tenant."""
        pairs = (pair.partition(":") for pair in self.api_keys.split(",") if pair.strip())
        return {key.strip(): tenant.strip() for tenant, _, key in pairs}

    @property
    def unknown_tenants(self) -> list[str]:
        """Tenants that tables and rules speak of and no API key names; none when there are no keys."""
        spoken_of = {*self.tenants, *(name for rule in self.rules for name in rule.when.tenant)}
        return sorted(spoken_of - set(self.keys.values())) if self.api_keys else []

    @property
    def model_folder(self) -> Path:
        return self.embed_model or self.state_dir / "models" / "minilm"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := config_file():
            sources.append(_File(settings_cls, toml_file=path))
        return tuple(sources)


def config_file() -> Path | None:
    """The file `K9_CONFIG` names, else `k9.toml` in the current folder, else none."""
    if named := os.environ.get("K9_CONFIG"):
        return Path(named)
    here = Path("k9.toml")
    return here if here.is_file() else None


def load_settings(**overrides: Any) -> Settings:
    """Read the configuration once. Raises `ConfigurationError` naming the key and the fix."""
    path = config_file()
    if path and not path.is_file():
        raise ConfigurationError(f"K9_CONFIG names {path}, which is not a file.")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_line(problem) for problem in error.errors(include_url=False, include_input=False)]
        raise ConfigurationError(
            f"The configuration ({path or 'environment'}) is not valid:\n" + "\n".join(lines)
        ) from None
    except SettingsError as error:
        raise ConfigurationError(
            f"A K9_ variable cannot be read: {error}. Lists and tables in variables are JSON, "
            """as in K9_PRIVACY__WORDS='["one", "two"]'."""
        ) from None
    except (ValueError, OSError) as error:  # tomllib's and pydantic-settings' own are ValueErrors
        raise ConfigurationError(f"{path or 'The environment'} cannot be read: {error}") from None


def _line(problem: ErrorDetails) -> str:
    """The key and the fix. What concerns the whole names its key itself."""
    match problem["type"]:
        case "extra_forbidden":
            fix = "there is no such setting; correct its spelling (a name with a dot in it needs quotes)"
        case "tuple_type":
            fix = "it should be a list"
        case _:
            fix = problem["msg"].removeprefix("Value error, ")
    return "  " + ": ".join(filter(None, (".".join(map(str, problem["loc"])), fix)))
