"""The API reference in a browser, at /docs: Swagger UI from an installed package, so that it needs no network.

The page and the script that starts Swagger UI are our own: FastAPI's page has inline scripts, which the
Content-Security-Policy forbids.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs/assets"
_START = "/docs/start.js"

_HEADERS = {
    # `data:` for the icons in Swagger UI's style sheet, `blob:` for an image in a response that it shows.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{assets}/favicon.png">
<link rel="stylesheet" href="{assets}/swagger-ui.css">
<script src="{assets}/swagger-ui-bundle.js" defer></script>
<script src="{start}" defer></script>
</head>
<body><div id="swagger-ui"></div></body>
</html>
"""

_SCRIPT = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""

_CACHED = {"Cache-Control": "public, max-age=3600"}


def add_reference(app: FastAPI) -> None:
    """Adds the routes of /docs, and of the files that the page loads."""

    @app.get("/docs", include_in_schema=False)
    async def show_reference() -> HTMLResponse:
        return HTMLResponse(_PAGE.format(title=app.title, assets=_ASSETS, start=_START), headers=_HEADERS)

    @app.get(_START, include_in_schema=False)
    async def start_reference() -> Response:
        return Response(_SCRIPT, media_type="text/javascript", headers=_CACHED)

    app.mount(_ASSETS, _CachedFiles(directory=_wheel_folder()))


class _CachedFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_CACHED)
        return response


def _wheel_folder() -> Path:
    # The package is not imported: only its files are needed.
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("fastapi_offline")
    return Path(spec.origin).parent / "static"
