"""`make bench-live`: real pictures, through a provider that answers at once; ours beside LiteLLM and Portkey.

`python -m benchmarks.live --rounds 1 --seconds 3` runs short.
"""

import argparse
import asyncio
import base64
import json
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import shake_256
from io import BytesIO
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory

import uvloop
from benchmarks.machine import (
    WIDE_OPEN,
    Load,
    Server,
    database,
    free_port,
    load,
    machine,
    median_ratio,
    new_key,
    serving,
    started,
    tool,
)
from PIL import Image
from platformdirs import user_cache_path

ROUNDS, SECONDS, WARM_UP_SECONDS, CONNECTIONS = 3, 6, 2, 16
SIDE = 1024
MODEL = "gpt-image-1"
KEY = "sk-of-nobody"
TWIN = "/v1/images/generations"
PIECE_BYTES = 1024 * 1024
PEER_START_SECONDS = 120
PEER_FIRST_SECONDS = 5  # its first calls import the rest of it
INSTALL_SECONDS = 900
LITELLM, PORTKEY = "litellm[proxy]==1.106.2", "@portkey-ai/gateway@1.15.2"
_VALUES_OF_NOISE = 4
"""Of each sample, so that the PNG weighs about 1.13 MB."""
_BODY = {"model": MODEL, "prompt": "A cute banana", "n": 1, "size": f"{SIDE}x{SIDE}"}


@dataclass(frozen=True)
class System:
    """What is called, and how: `more` is a script for wrk."""

    server: Server
    key: str
    path: str
    body: Mapping[str, object]
    more: str = ""

    def load(self, seconds: int) -> Load:
        return load(
            self.server.url,
            keys=[self.key],
            seconds=seconds,
            connections=CONNECTIONS,
            path=self.path,
            bodies=[json.dumps(self.body)],
            more=self.more,
        )


def main() -> None:
    tool()
    if sys.argv[1:2] == ["draw"]:
        uvloop.run(draw(int(sys.argv[2])))
        return
    options = argparse.ArgumentParser(prog="benchmarks.live")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seconds", type=int, default=SECONDS)
    options.add_argument("--only-ours", action="store_true", help="leave LiteLLM and Portkey out")
    chosen = options.parse_args()
    with ExitStack() as stack:
        port = free_port()
        upstream = stack.enter_context(serving("benchmarks.live", "draw", str(port), port=port))
        systems = start_ours(stack, upstream)
        if not chosen.only_ours:
            systems |= start_peers(stack, upstream)
        for system in systems.values():
            system.load(WARM_UP_SECONDS)
        loads, cpu = measure(systems, rounds=chosen.rounds, seconds=chosen.seconds)
    report(loads, cpu, seconds=chosen.seconds)


def measure(
    systems: Mapping[str, System], *, rounds: int, seconds: int
) -> tuple[Mapping[str, Sequence[Load]], Mapping[str, Sequence[float]]]:
    """Interleaved rounds: what each came to, and the processor time of its server for a picture in milliseconds."""
    loads: defaultdict[str, list[Load]] = defaultdict(list)
    cpu: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name, system in systems.items():
            before = system.server.tree_cpu_seconds
            loads[name].append(system.load(seconds))
            cpu[name].append(1e3 * (system.server.tree_cpu_seconds - before) / loads[name][-1].requests)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return loads, cpu


def start_ours(stack: ExitStack, upstream: Server) -> dict[str, System]:
    port = free_port()
    settings = {
        **WIDE_OPEN,
        "DATABASE_URL": stack.enter_context(database()),
        "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-pictures-")),
        "SECRET_KEY": token_urlsafe(48),
        "IMAGE_PROVIDER": "openai",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{upstream.url}/v1",
        "OPENAI_MODEL": MODEL,
        "OPENAI_CAPABILITIES": "edit",
    }
    server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
    key = new_key(server.url)
    native = {"prompt": _BODY["prompt"], "size": _BODY["size"]}
    edit = {**native, "images": [f"data:image/png;base64,{base64.b64encode(picture()).decode()}"]}
    return {
        "ours, url": System(server, key, "/v1/generate", native),
        f"ours, one input image of {len(picture()) / 1e6:.2f} MB": System(server, key, "/v1/generate", edit),
        "ours, twin with b64_json": System(server, key, TWIN, _BODY | {"response_format": "b64_json"}),
    }


def start_peers(stack: ExitStack, upstream: Server) -> dict[str, System]:
    """Those that can be installed and started. For each of the others it prints one sentence."""
    folder = user_cache_path("nanobanana") / "bench-live"
    started_peers = {}
    peers: Mapping[str, Callable[[Path, Server], AbstractContextManager[System]]] = {
        "LiteLLM": litellm,
        "Portkey": portkey,
    }
    for name, start in peers.items():
        try:
            started_peers[name] = stack.enter_context(start(folder, upstream))
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name} is left out: it cannot be installed or started here ({type(error).__name__}).")
    return started_peers


@contextmanager
def litellm(folder: Path, upstream: Server) -> Iterator[System]:
    environment = folder / LITELLM
    program = environment / "bin" / "litellm"
    if not program.exists():
        install(environment, [sys.executable, "-m", "venv", "."], ["bin/pip", "install", "-q", LITELLM])
    with TemporaryDirectory(prefix="bench-litellm-") as own:
        config, port = Path(own) / "config.yaml", free_port()
        config.write_text(json.dumps(_litellm_config(upstream)))
        command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        environment_of = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would be fetched
        with started(
            command, port=port, cwd=own, environment=environment_of, start_seconds=PEER_START_SECONDS
        ) as server:
            yield checked(System(server, KEY, TWIN, _BODY))


def _litellm_config(upstream: Server) -> Mapping[str, object]:
    routed = {"model": f"openai/{MODEL}", "api_base": f"{upstream.url}/v1", "api_key": KEY}
    models = [{"model_name": MODEL, "litellm_params": routed}]
    return {"model_list": models, "general_settings": {"master_key": KEY}}  # JSON is YAML


@contextmanager
def portkey(folder: Path, upstream: Server) -> Iterator[System]:
    environment, port = folder / PORTKEY.replace("/", "-"), free_port()
    program = environment / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        install(environment, ["npm", "install", "--no-audit", "--no-fund", "--silent", PORTKEY])
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream.url}/v1"}
    more = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    command = [shutil.which("node") or "node", str(program), f"--port={port}", "--headless"]
    environment_of = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    with started(
        command, port=port, cwd=environment, environment=environment_of, start_seconds=PEER_START_SECONDS
    ) as server:
        yield checked(System(server, KEY, TWIN, _BODY, more))


def install(folder: Path, *commands: Sequence[str]) -> None:
    """Runs the commands in a new folder, which stays for the next time only if all succeed."""
    print(f"installing into {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except BaseException:
        shutil.rmtree(folder)
        raise


def checked(system: System) -> System:
    """The system, once it passes pictures on. Raises OSError where it does not."""
    system.load(PEER_FIRST_SECONDS)
    found = system.load(WARM_UP_SECONDS)
    if found.errors or not found.requests:
        raise OSError(f"{found.errors} of {found.requests} calls failed")
    return system


async def draw(port: int) -> None:
    """The provider: it answers every POST at once with the same picture."""
    body = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(picture()).decode()}]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                sent = (await reader.readuntil(b"\r\n\r\n")).lower()
                rest = int(sent.partition(b"content-length:")[2].partition(b"\r\n")[0])
                while rest:
                    rest -= len(await reader.readexactly(min(rest, PIECE_BYTES)))
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def picture() -> bytes:
    """A PNG of noise: it decodes as slowly as a photograph, and weighs as much."""
    noise = shake_256(b"A cute banana").digest(3 * SIDE * SIDE)
    samples = noise.translate(bytes(200 + value % _VALUES_OF_NOISE for value in range(256)))
    encoded = BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), samples).save(encoded, "PNG")
    return encoded.getvalue()


def report(loads: Mapping[str, Sequence[Load]], cpu: Mapping[str, Sequence[float]], *, seconds: int) -> None:
    rounds = len(cpu["ours, url"])
    print(f"\n{machine()}\n{rounds} rounds of {seconds} s, interleaved, {CONNECTIONS} connections, one worker; medians")
    print(f"a provider on loopback, which answers at once with a PNG of {len(picture()) / 1e6:.2f} MB as base64\n")
    print("| what | pictures/s | of LiteLLM | p50 ms | p99 ms | server's CPU, ms a picture | errors |")
    print("|---|---|---|---|---|---|---|")
    for name, each in loads.items():
        of_peer = f"{median_ratio(each, loads['LiteLLM'], 'per_second'):.2f}" if "LiteLLM" in loads else "-"
        told = [statistics.median(getattr(one, field) for one in each) for field in ("good_per_second", "p50", "p99")]
        errors = sum(one.errors for one in each)
        row = f"{told[0]:.1f} | {of_peer} | {told[1]:.0f} | {told[2]:.0f} | {statistics.median(cpu[name]):.1f}"
        print(f"| {name} | {row} | {errors} |")


if __name__ == "__main__":
    main()
