"""The options of `ocean simulate` for devices that send frames, and where their frames go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from ocean_core.cli.frame_input import InputError, secret_of
from ocean_core.client.connection import split_url
from ocean_core.client.http import ServerSource
from ocean_core.facade.source import DataDirSource
from ocean_core.model.errors import CommandError, NotRunningError
from ocean_core.protocol.nanogridata.binary import NAME_BYTES_MAX
from ocean_core.runtime.lock import RUN_FILE
from ocean_core.simulator.device_network import Address, Locate
from ocean_core.simulator.frames import MODELS
from ocean_core.simulator.plan import FrameOrder, Transport

T = TypeVar("T")

PORTS: Final = {Transport.TCP: 5678, Transport.UDP: 5679}
_NAMES: Final = {Transport.TCP: "frames_tcp", Transport.UDP: "frames_udp"}
# The id of a run, or what was typed, and the number of a device.
PREFIX_BYTES_MAX: Final = NAME_BYTES_MAX - 6
_OF_READINGS: Final = ("form", "compress", "metrics", "no_keys")


def frame_options(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options of frames; it gets what they say as ``frame_order`` and ``to``.

    ``frame_order`` is None if readings are to be sent. Wrong usage is told here.
    """

    @click.option(
        "--protocol",
        type=click.Choice(["readings", "nanogridata"]),
        default="readings",
        show_default=True,
        help="What is sent: readings as JSON or blocks, or frames of devices.",
    )
    @click.option(
        "--transport",
        type=click.Choice([str(one) for one in Transport]),
        help="How frames travel; over tcp each is acknowledged, over udp none. Default: tcp.",
    )
    @click.option(
        "--level",
        type=click.IntRange(0, 3),
        help="Security level of frames. Default: 1 with a secret file, else 0.",
    )
    @click.option(
        "--secret-file",
        "secret_files",
        multiple=True,
        metavar="[MODEL=]FILE",
        help="Secret of the devices, hex or raw; with MODEL for one model, such as 0x10=esp32.key.",
    )
    @click.option(
        "--to",
        metavar="HOST:PORT",
        help="Where frames go over tcp and udp. Default: what the box says, else its address and "
        f"port {PORTS[Transport.TCP]} or {PORTS[Transport.UDP]}.",
    )
    @functools.wraps(command)
    def with_frames(
        *,
        protocol: str,
        transport: str | None,
        level: int | None,
        secret_files: tuple[str, ...],
        to: str | None,
        **others: Any,  # noqa: ANN401 - handed on as it is
    ) -> T:
        typed = (transport, level, to, *secret_files)
        if protocol == "readings":
            if any(value is not None for value in typed):
                raise click.UsageError(
                    "--transport, --level, --secret-file and --to are for --protocol nanogridata"
                )
            return command(frame_order=None, to=None, **others)
        _check_options(others)
        secrets = read_secrets(secret_files)
        used = (1 if secrets else 0) if level is None else level
        missing = [f"0x{model:02x}" for model in MODELS if used and model not in secrets]
        if missing:
            raise click.UsageError(
                f"--level {used} needs a secret for {' and '.join(missing)}: --secret-file FILE"
            )
        order = FrameOrder(Transport(transport or Transport.TCP), used, secrets)
        address = None if to is None else _address(to)
        return command(frame_order=order, to=address, **others)

    return with_frames


def read_secrets(secret_files: tuple[str, ...]) -> dict[int, bytes]:
    """Return the secrets by model. Raises CommandError for a file that cannot be used."""
    secrets: dict[int, bytes] = {}
    named: dict[int, bytes] = {}
    for text in secret_files:
        model_text, sign, path = text.partition("=")
        try:
            model = int(model_text, 0) if sign else None
        except ValueError:
            # No model, but a path with such a sign in it.
            model = None
        if model is None:
            path = text
        if model is not None and model not in MODELS:
            known = ", ".join(f"0x{known:02x}" for known in MODELS)
            raise click.UsageError(f"--secret-file {text}: simulated devices are of {known}")
        secret = _read(Path(path))
        if model is None:
            secrets |= dict.fromkeys(MODELS, secret)
        else:
            named[model] = secret
    return secrets | named


def locator(source: ServerSource, transport: Transport, to: Address | None) -> Locate | None:
    """Return what says where frames go, None if they go the way of all requests.

    It raises NotRunningError if no server runs, CommandError if it takes no frames this way.
    """
    if transport is Transport.HTTP:
        return None
    if to is not None:
        return lambda: to
    if not isinstance(source, DataDirSource):
        host = split_url(source.target().url).hostname or ""
        return lambda: (host, PORTS[transport])
    path = source.data_dir / RUN_FILE

    def locate() -> Address:
        try:
            told = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise NotRunningError(
                f"{path.parent}: no server runs on this data directory"
            ) from error
        address = str(told.get(_NAMES[transport]) or "")
        if not address:
            raise CommandError(
                f"the box does not listen for frames over {transport}",
                hint=f"Switch it on: nanogridata.{transport} = true.",
            )
        return _address(address)

    return locate


def _check_options(others: dict[str, Any]) -> None:
    context = click.get_current_context()
    for name in _OF_READINGS:
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE:
            option = {"form": "format", "metrics": "metric"}.get(name, name).replace("_", "-")
            raise click.UsageError(f"--{option} is for --protocol readings")
    prefix = others.get("prefix") or ""
    if len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise click.UsageError(
            f"--prefix: {len(prefix.encode())} bytes found; names of devices have at most "
            f"{NAME_BYTES_MAX}, so {PREFIX_BYTES_MAX} are left for it"
        )


def _read(path: Path) -> bytes:
    try:
        return secret_of(path.read_bytes())[0]
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except InputError as error:
        raise CommandError(f"{path}: {error}") from error


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.UsageError(f"--to {text}: HOST:PORT expected")
    return host.strip("[]"), int(port)
