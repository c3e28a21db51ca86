"""Images that go into a generation of the playground, by its form alone: files, images of the account, a mask."""

import asyncio
import json
import subprocess
from io import BytesIO, StringIO
from pathlib import Path

import asyncpg
import httpx2
import pytest
from PIL import Image
from tests.conftest import Start
from tests.console.browser import Browser, File, Page
from tests.raw_http import head, send_raw

MULTIPART = ("Content-Type", "multipart/form-data; boundary=x")
SIZE = "256x256"


def png(color: str, *, side: int = 64, alpha: int | None = None) -> bytes:
    """A square image, or with `alpha` a mask: transparent in its left half."""
    image = Image.new("RGB" if alpha is None else "RGBA", (side, side), color)
    if alpha is not None:
        image.paste((0, 0, 0, alpha), (0, 0, side // 2, side))
    encoded = BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


RED, BLUE, MASK = png("red"), png("blue"), png("black", alpha=0)


async def edit(browser: Browser, *files: File, page: Page | None = None, **values: object) -> Page:
    """Sends the form of the page, or of a new one, with these files; the page that comes back."""
    sent = {"prompt": "Make it night", "size": SIZE, **values}
    return await browser.submit_files(page or await browser.open("/playground"), "/playground", files, sent)


async def test_files_and_images_of_the_account_go_in_in_order_with_a_mask_and_the_history_shows_them(
    ada: Browser, database: asyncpg.Connection
) -> None:
    await ada.create_key()
    source = (await ada.generate("A harbour")).result
    page = await ada.open(f"/playground?edit={source}")
    assert page.form("/playground").checked["images"] == [source]
    edited = await edit(ada, ("images", RED), ("images", BLUE), ("mask", MASK), page=page)
    assert edited.status == 200, edited.text("p", role="alert")
    kept = json.loads(await database.fetchval("select inputs from generations where id = $1", edited.result))
    assert [each.get("id") for each in kept] == [source, None, None, None]
    assert [each.get("role") for each in kept] == [None, None, None, "mask"]
    history = await ada.open("/history")
    [sources] = history.all("span", class_="sources")
    assert " ".join(sources.text.split()) == "Made from an upload (2)"
    assert [each.attributes["alt"] for each in history.all("img") if each.attributes["alt"]] == ["A harbour"]
    await database.execute("update generations set deleted_at = now() where id = $1", source)
    [sources] = (await ada.open("/history")).all("span", class_="sources")
    assert " ".join(sources.text.split()) == "Made from a deleted image, an upload (2)"


async def test_the_same_files_sent_twice_are_one_generation_and_other_files_another(ada: Browser) -> None:
    await ada.create_key()
    page = await ada.open("/playground")
    sent = [[("images", each) for each in files] for files in ([RED], [RED], [BLUE], [BLUE, RED])]
    results = [(await edit(ada, *files, page=page)).result for files in sent]
    assert results[0] == results[1]
    assert len(set(results)) == 3


@pytest.mark.parametrize("path", ["/playground", "/playground/jobs"])
async def test_a_file_in_a_field_of_text_is_refused_whichever_field_it_is(
    ada: Browser, path: str, log: StringIO
) -> None:
    await ada.create_key()
    values = {**(await ada.open("/playground")).form("/playground").values, "prompt": "Make it night", "size": SIZE}
    assert {"csrf_token", "prompt", "size", "key_id", "form_id"} <= values.keys()
    for name in [*values, "model", "quality"]:
        others = {field: value for field, value in values.items() if field != name}
        page = await ada.post(path, others, files=[(name, b"a file")])
        assert page.status == 400
        assert "The form has a file in a field of text" in page.text("p", role="alert")
    assert "form_rerender_failed" not in log.getvalue()


REFUSED: dict[str, tuple[list[File], str]] = {
    "not an image": ([("images", RED), ("images", b"no image")], "Image 2: "),
    "a mask alone": ([("mask", MASK)], "A mask needs an image"),
    "a mask of another size": ([("images", RED), ("mask", png("red", side=32, alpha=0))], ""),
    "more than there may be": ([("images", RED)] * 17, "This model takes at most 16 images"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_wrong_with_a_file_stands_beside_it_and_the_prompt_stays(ada: Browser, case: str) -> None:
    files, beginning = REFUSED[case]
    await ada.create_key()
    values = {**(await ada.open("/playground")).form("/playground").values, "prompt": "Make it night", "size": SIZE}
    page = await ada.post("/playground", values, files=files)
    assert page.status == 422
    [error] = [each.text for each in page.all("p", class_="error")]
    assert error.startswith(beginning)
    assert page.all("p", role="alert") == [], "the error is not shown twice"
    assert page.form("/playground").values["prompt"] == "Make it night"


async def test_an_image_of_another_account_goes_in_as_little_as_one_that_never_was(ada: Browser, eve: Browser) -> None:
    for browser in (ada, eve):
        await browser.create_key()
    of_eve, unknown = (await eve.generate("a secret of eve")).result, f"gen_{'0' * 28}"
    seen = []
    for each in (of_eve, unknown):
        values = {**(await ada.open("/playground")).form("/playground").values, "prompt": "Night", "images": each}
        assert (await ada.post("/playground", values)).status == 422, "without a file, in a form of text"
        page, sent = await ada.open(f"/playground?edit={each}"), await edit(ada, images=[each])
        seen.append(
            [
                (each.status, each.text("h1"), [error.text for error in each.all("p", class_="error")])
                for each in (page, sent)
            ]
        )
        assert [page.status, sent.status] == [404, 422]
        assert "a secret of eve" not in page.response.text + sent.response.text
    assert seen[0] == seen[1]


async def test_a_form_with_files_needs_its_csrf_token_and_its_site(ada: Browser, eve: Browser) -> None:
    key_id, _ = await ada.create_key()
    foreign = (await eve.open("/keys")).forms[0].values["csrf_token"]
    page = await edit(ada, ("images", RED), csrf_token=foreign, key_id=key_id)
    assert (page.status, page.form("/playground").values["prompt"]) == (403, "Make it night")
    values = {**(await ada.open("/playground")).form("/playground").values, "prompt": "Night"}
    page = await ada.post("/playground", values, files=[("images", RED)], headers={"Origin": "https://evil.example"})
    assert page.status == 403
    assert (await ada.open("/history")).all("figure") == []


@pytest.mark.parametrize(
    ("is_logged_in", "length", "status"), [(True, 97 * 1024 * 1024, 413), (False, 1024 * 1024, 401)]
)
async def test_a_form_that_is_too_large_or_a_strangers_is_refused_before_its_files_are_read(
    site: httpx2.AsyncClient, ada: Browser, is_logged_in: bool, length: int, status: int
) -> None:
    cookie = f"nanobanana={ada.cookie() if is_logged_in else 'x' * 40}"
    headers = [("Origin", "http://console.test"), ("Cookie", cookie), MULTIPART, ("Content-Length", str(length))]
    response = await send_raw(site, head("POST", "/playground", headers))
    assert response.status_code == status, response.text


MODELS = """
default = "words"

[models.words]
[[models.words.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "one"
sizes = ["1024x1024"]

[models.one]
[[models.one.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "one"
sizes = ["1024x1024"]
capabilities = ["edit"]

[models.stub]
[[models.stub.routes]]
provider = "stub"
"""


async def test_the_playground_takes_what_the_model_takes(start: Start, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(MODELS)
    browser = Browser(await start(public_url="http://console.test", models_file=tmp_path / "models.toml"))
    await browser.sign_up()
    await browser.create_key(environment="test")
    offered = {}
    for model in ("words", "one", "stub"):
        page = await browser.open(f"/playground?model={model}")
        [most] = [each.attributes["data-max"] for each in page.all("image-inputs")] or ["0"]
        offered[model] = (int(most), list(page.form("/playground").files or []))
    assert offered == {"words": (0, []), "one": (1, ["images"]), "stub": (16, ["images", "mask"])}
    made = await edit(browser, page=await browser.open("/playground?model=words"), size="1024x1024")
    edited = await browser.open(f"/playground?edit={made.result}")
    values = edited.form("/playground").values
    assert (values["model"], values["size"]) == ("one", "auto"), "the first model that takes images"


async def test_the_curl_snippet_sends_the_images(ada: Browser, tmp_path: Path) -> None:
    _, raw = await ada.create_key()
    source = (await ada.generate("A harbour")).result
    prompt = 'it\'s "quoted" $HOME `id` \\ 100%\nand goes on'
    page = await ada.open(f"/playground?edit={source}")
    page = await edit(ada, ("images", RED), ("mask", MASK), page=page, prompt=prompt)
    (tmp_path / "image-2.png").write_bytes(BLUE)
    (tmp_path / "mask.png").write_bytes(MASK)
    command = (
        page.by_id("call-curl-code").text.replace("http://console.test", ada.origin).replace("curl ", "curl -s ", 1)
    )
    run = subprocess.run
    done = await asyncio.to_thread(
        run,
        ["bash", "-c", command],
        env={"KEY": raw, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=30,
    )
    answer = json.loads(done.stdout)
    assert (answer["prompt"], answer["images"]) == (prompt, [{"id": source}, {"id": None}])
