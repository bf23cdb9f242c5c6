"""Where a value comes from: flag, else environment, else TOML file, else default.

Every option's environment variable is its name in capitals with `RAFTCHAT_` in front. The TOML file has the options'
names as keys, at the top level. Does not know what an option means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def option(name: str, *names: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` with the environment variable that belongs to it, and its default shown."""
    variable = "RAFTCHAT_" + name.lstrip("-").replace("-", "_").upper()
    attributes.setdefault("show_default", attributes.get("default") is not None)
    return click.option(name, *names, envvar=variable, show_envvar=False, **attributes)


def config_option(function: F) -> F:
    """`--config FILE`, read before all others."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        envvar="RAFTCHAT_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_read,
        help='TOML file with any of these options, as in  election-timeout = "2s".',
    )(function)


def _read(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise click.BadParameter(f"{path} is not TOML: {error}", ctx, param) from None
    known = {p.name: p for p in ctx.command.params if p.name not in (None, "config", "help")}
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            names = ", ".join(sorted(str(other).replace("_", "-") for other in known))
            raise click.BadParameter(f"{path}: there is no option {key!r}; there are {names}", ctx, param)
        settings[name] = value
    ctx.default_map = settings
