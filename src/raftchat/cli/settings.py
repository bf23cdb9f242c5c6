"""Where a value comes from: flag, else environment, else TOML file, else default.

Every option's environment variable is its name in capitals with `RAFTCHAT_` in front. The TOML file has the options'
names as keys, at the top level. Does not know what an option means.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

log = logging.getLogger(__name__)

PREFIX = "RAFTCHAT_"
F = TypeVar("F", bound=Callable[..., Any])


def option(name: str, *names: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` with the environment variable that belongs to it, and its default shown."""
    variable = PREFIX + name.lstrip("-").replace("-", "_").upper()
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
    known = {
        _key(p): p.name
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name is not None and _key(p) not in ("config", "help")
    }
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = known.get(key.replace("_", "-"))
        if name is None:
            names = ", ".join(sorted(known))
            raise click.BadParameter(f"{path}: there is no option {key!r}; there are {names}", ctx, param)
        settings[name] = value
    ctx.default_map = settings


def _key(parameter: click.Parameter) -> str:
    """The option as a user writes it, without its dashes; inside the program it may have another name."""
    return parameter.opts[0].lstrip("-")


def warn_of_unknown(command: click.Command, environ: Mapping[str, str]) -> None:
    """A misspelt variable would be without effect, and nobody would know."""
    known = {str(p.envvar) for p in command.params if p.envvar}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            log.warning("No option has the name of this environment variable: it is ignored", extra={"variable": name})
