"""The undocumented parts of uvicorn that the server uses: a release that changes one of them fails here first.

A developer who raises the pinned version reads the changes in every part that a failure names, adapts our code to them,
and then writes down the new digest.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
from app import rolling
from app.web import fast_response, protocol
from app.web.parser import ParserCallbacks, RequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState
from uvicorn.supervisors.multiprocess import Multiprocess, Process

OURS: Sequence[type] = (
    protocol.HttpProtocol,
    fast_response.FastResponse,
    rolling.RollingServer,
    rolling.RollingSupervisor,
)
DIGESTS: dict[type, dict[str, str]] = {
    HttpToolsProtocol: {
        "__init__": "4f0899941034",
        "_start_asgi_task": "9c08c2571ae9",
        "_unset_keepalive_if_required": "00a6a4e47214",
        "app_state": "07b3e0c8e9a6",
        "client": "c28c31385eb5",
        "config": "f374fe46c464",
        "connection_lost": "c91a4c9bf2e2",
        "connection_made": "6efb565ff3d3",
        "cycle": "94525f3adea0",
        "data_received": "010a7ae59a5d",
        "flow": "a5b32e2d90d6",
        "headers": "53bcfc0e1755",
        "loop": "ba0b226e6636",
        "on_body": "dba9c32aeba3",
        "on_headers_complete": "1ea8589acfad",
        "on_message_complete": "1fbad42dc31f",
        "parser": "054ac329b9e7",
        "pipeline": "bacb8048ae86",
        "scope": "f0e8acaf088f",
        "send_400_response": "ae5a4a3782b6",
        "server_state": "8b57e6121a13",
        "shutdown": "d7351fa33f00",
        "tasks": "ab753e97a81a",
        "timeout_keep_alive": "1cd2e5daa067",
        "timeout_keep_alive_handler": "8b53bf5f2e20",
        "timeout_keep_alive_task": "dd0acd23db2f",
        "transport": "1558b40b3361",
        "url": "76e1c3dfead4",
    },
    RequestResponseCycle: {
        "__init__": "4d2f220910c3",
        "body": "cda48f3a398b",
        "default_headers": "e152e30029ef",
        "disconnected": "09532348f933",
        "flow": "4f4b052452a7",
        "headers": "3fb9171ca8fa",
        "keep_alive": "35bcc17230d9",
        "message_event": "bdc09c48721e",
        "more_body": "ec295ec892d1",
        "on_response": "f6f75976332c",
        "response_complete": "da9aec52c294",
        "response_started": "4481e6580f5e",
        "run_asgi": "0f33f2449a44",
        "scope": "dcce03dca957",
        "send": "abdd8601b326",
        "transport": "fa6fed10202c",
        "waiting_for_100_continue": "f1dc5e5210c9",
    },
    FlowControl: {
        "__init__": "0152d94a0407",
        "drain": "4bda6b61c277",
        "pause_reading": "7c27388bb984",
        "read_paused": "4b6c55b94818",
        "resume_reading": "a0429d30857e",
        "write_paused": "7d1670d7665c",
    },
    ServerState: {
        "__init__": "8daf3a9b4e4e",
        "default_headers": "755007cc5504",
        "tasks": "5b914f5993b0",
        "total_requests": "407b92169736",
    },
    Server: {
        "__init__": "c150b55284f7",
        "config": "a46363ae3620",
        "handle_exit": "553276efa26e",
        "loop": "bd13ff6dcfd0",
        "on_tick": "60ea49b06ccf",
        "run": "239e0133d430",
        "server_state": "aa23c85f37d7",
        "should_exit": "76afbf3ce031",
        "shutdown": "9b33c5056299",
    },
    Multiprocess: {
        "__init__": "5e0f105cb4a3",
        "config": "f374fe46c464",
        "handle_int": "69aaa107668c",
        "handle_signals": "69be08d4fd9b",
        "handle_term": "88e8dbda93f2",
        "init_processes": "6c69f2a36bf5",
        "join_all": "0a1cc7529772",
        "process": "cc936332c774",
        "processes": "83c103a081ec",
        "run": "306814569fbd",
        "should_exit": "f1dd48623033",
        "sockets": "10020bfe647b",
        "terminate_all": "6efef9523120",
    },
    Process: {
        "__init__": "a8c85f799aae",
        "config": "f374fe46c464",
        "is_alive": "7fb1ab8fc390",
        "is_ready": "d1f0d0cdfff1",
        "join": "bcc96b4a8bcd",
        "kill": "23db0314aac4",
        "pid": "90398572c79e",
        "process": "7c5fff3bb121",
        "start": "56658f1a46a8",
        "terminate": "34bb463698e7",
    },
}


def _source_of(owner: type, name: str) -> str:
    """The source of a method, or the statements that assign an attribute; empty if the class has no such name."""
    found = inspect.getattr_static(owner, name, None)
    function = found.fget if isinstance(found, property) else found
    if inspect.isfunction(function):
        return inspect.getsource(function)
    return "\n".join(statement for statement, assigned in _assignments(owner) if name in assigned)


@cache
def _assignments(owner: type) -> Sequence[tuple[str, Sequence[str]]]:
    """The statements of the class that assign, and which names each of them does."""
    nodes = [(node, list(_assigned_by(node))) for node in ast.walk(ast.parse(inspect.getsource(owner)))]
    return [(ast.unparse(node), assigned) for node, assigned in nodes if assigned]


def _assigned_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield ast.unparse(target).removeprefix("self.")


@cache
def _names_in_use() -> set[str]:
    """The name of every attribute that our modules read, write or call, and of all that our classes define."""
    files = {Path(inspect.getsourcefile(ours) or "") for ours in OURS}
    read = {
        node.attr for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)
    }
    return {name for name in (*read, *(name for ours in OURS for name in vars(ours))) if not name.startswith("__")} | {
        "__init__"
    }


def _digests(owner: type) -> dict[str, str]:
    sources = {name: _source_of(owner, name) for name in sorted(_names_in_use())}
    return {name: sha256(source.encode()).hexdigest()[:12] for name, source in sources.items() if source}


@pytest.mark.parametrize("owner", DIGESTS, ids=lambda owner: owner.__name__)
def test_the_undocumented_parts_of_uvicorn_that_are_used_have_not_changed(owner: type) -> None:
    assert _digests(owner) == DIGESTS[owner]


def test_our_parser_has_every_method_that_uvicorn_calls() -> None:
    called = set(re.findall(r"self\.parser\.(\w+)\(", inspect.getsource(HttpToolsProtocol)))
    missing = called - set(dir(RequestParser(cast(ParserCallbacks, None))))
    assert missing == {"set_dangerous_leniencies"}, "which uvicorn calls only before our parser takes over"
