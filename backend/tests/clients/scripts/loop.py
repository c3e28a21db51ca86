"""What all scripts share: a call is a line of JSON on standard input, its answer one on standard output."""

import json
import sys
from collections.abc import Callable
from typing import Any

Call = dict[str, Any]
"""`function`, `base_url`, `key`, and the `arguments` that the client's user passes."""
Answer = dict[str, Any]
"""`images` with `url` or `b64_json` each, `events`, `models`, or the `error` that the user is shown."""


def run(*functions: Callable[[Call], Answer]) -> None:
    """Answers calls by these functions until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a client prints is no answer
    by_name = {function.__name__: function for function in functions}
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = by_name[call["function"]](call)
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)
