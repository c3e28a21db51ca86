"""The limits that the settings name, parsed once."""

from dataclasses import dataclass

from app.core.limit_settings import LimitMode, LimitSettings
from app.ratelimit import Limit


@dataclass(frozen=True)
class OriginPolicy:
    """How often an action may be tried from one address, from one network, and from everywhere together."""

    name: str
    per_ip: Limit
    per_network: Limit
    everywhere: Limit


@dataclass(frozen=True, eq=False)
class Policies:
    """Every limit of the settings. What was set for a key or an account goes before the limits of generations. No two
    are equal: what is derived from one is remembered for that one.
    """

    generate_mode: LimitMode
    generate_per_key: Limit
    generate_per_account: Limit
    test_generate_per_account: Limit
    generate_concurrency_per_key: int
    upload_per_account: Limit
    create_key_per_account: Limit
    checkout_per_account: Limit
    unknown_key_per_ip: Limit
    register: OriginPolicy
    register_per_account: Limit
    login: OriginPolicy
    login_per_account: Limit
    login_per_account_and_network: Limit
    login_per_account_anywhere: Limit

    @classmethod
    def of(cls, settings: LimitSettings) -> "Policies":
        parse = Limit.parse
        return cls(
            generate_mode=settings.generate_limit_mode,
            generate_per_key=parse(settings.generate_limit_per_key),
            generate_per_account=parse(settings.generate_limit_per_account),
            test_generate_per_account=parse(settings.test_generate_limit_per_account),
            upload_per_account=parse(settings.upload_limit_per_account),
            create_key_per_account=parse(settings.create_key_limit_per_account),
            checkout_per_account=parse(settings.checkout_limit_per_account),
            generate_concurrency_per_key=settings.generate_concurrency_per_key,
            unknown_key_per_ip=parse(settings.unknown_key_limit_per_ip),
            register=OriginPolicy(
                "register",
                parse(settings.register_limit_per_ip),
                parse(settings.register_limit_per_network),
                parse(settings.register_limit_global),
            ),
            register_per_account=parse(settings.register_limit_per_account),
            login=OriginPolicy(
                "login",
                parse(settings.login_limit_per_ip),
                parse(settings.login_limit_per_network),
                parse(settings.login_limit_global),
            ),
            login_per_account=parse(settings.login_limit_per_account),
            login_per_account_and_network=parse(settings.login_limit_per_account_and_network),
            login_per_account_anywhere=parse(settings.login_limit_per_account_anywhere),
        )
