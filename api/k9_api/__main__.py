"""`python -m k9_api`: the API as the configuration says."""

from __future__ import annotations

import sys

from k9_broker.errors import ConfigurationError
from k9_broker.settings import load_settings


def main() -> int:
    try:
        settings = load_settings()
        if not settings.redis_url:
            raise ConfigurationError(
                "The API needs a Redis: set K9_REDIS_URL, or use `k9 up`, which starts one."
            )
    except ConfigurationError as error:
        sys.stderr.write(f"k9: {error.message}\n")
        return 2
    from k9_api.serve import serve

    serve(settings, settings.redis_url, load_settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
