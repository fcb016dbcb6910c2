"""The whole appliance with its listeners for frames, whose ports stay over restarts."""

import json
from pathlib import Path

from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE
from support.appliance import Appliance

SECRET = bytes(range(7, 39))


def write_secret(path: Path, secret: bytes = SECRET) -> Path:
    """Write a secret as hex, as operators keep it."""
    path.write_text(secret.hex() + "\n", encoding="ascii")
    path.chmod(0o600)
    return path


def frame_settings(secret_file: Path, *, tcp_port: int = 0, udp_port: int = 0) -> dict[str, str]:
    """Return the environment that switches the listeners on."""
    return {
        "OCEAN_NANOGRIDATA__TCP": "true",
        "OCEAN_NANOGRIDATA__UDP": "true",
        "OCEAN_NANOGRIDATA__TCP_PORT": str(tcp_port),
        "OCEAN_NANOGRIDATA__UDP_PORT": str(udp_port),
        "OCEAN_NANOGRIDATA__SECRET_FILES": ",".join(
            f"0x{model:02x}={secret_file}" for model in (PRESSURE, GAS)
        ),
    }


def frames_port(box: Appliance, transport: str = "tcp") -> int:
    """Return where a running box takes frames."""
    info = json.loads((box.data_dir / "run.json").read_bytes())
    return int(str(info[f"frames_{transport}"]).rpartition(":")[2])


def keep_frames_port(box: Appliance) -> int:
    """Listen at the same port after the next start, for clients that only know one."""
    port = frames_port(box)
    box.environment["OCEAN_NANOGRIDATA__TCP_PORT"] = str(port)
    return port
