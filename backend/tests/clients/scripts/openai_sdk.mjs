// OpenAI's SDK for Node, as its documentation calls it.
import { createReadStream } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI, { toFile } from "openai";
import { run } from "./loop.mjs";

const sdk = (call) => new OpenAI({ baseURL: call.base_url, apiKey: call.key });

// Headers are a second argument here, and one among the others in Python.
const passed = ({ extra_headers: headers, extra_body: body, ...rest }) => [{ ...rest, ...body }, { headers }];

async function generate(call) {
  return { images: (await sdk(call).images.generate(...passed(call.arguments))).data };
}

// With `Prefer: respond-async`, then `client.get(...)` of the generation until it has ended.
async function later(call) {
  const headers = { Prefer: "respond-async" };
  const accepted = await sdk(call).images.generate(call.arguments, { headers });
  let shown = { status: "queued" };
  while (["queued", "processing"].includes(shown.status)) {
    shown = await sdk(call).get(`/generations/${accepted.id}`, { query: { wait: 30 } });
  }
  return { images: shown.outputs.map(({ url }) => ({ url })) };
}

async function stream(call) {
  const events = [];
  for await (const { type, b64_json } of await sdk(call).images.generate({ stream: true, ...call.arguments })) {
    events.push({ type, b64_json });
  }
  return { events };
}

// The arguments with files instead of base64: a list if there are several, and streams of files on the disk `as_stream`.
async function withFiles({ images, mask, as_stream: asStream, ...rest }) {
  const files = await Promise.all(
    images.map(async (each, index) => {
      const content = Buffer.from(each, "base64");
      if (!asStream) return toFile(content, "in.png", { type: "image/png" });
      const path = join(await mkdtemp(join(tmpdir(), "edit-")), `in${index}.png`);
      await writeFile(path, content);
      return createReadStream(path);
    }),
  );
  if (mask) rest.mask = await toFile(Buffer.from(mask, "base64"), "mask.png", { type: "image/png" });
  return { ...rest, image: files.length > 1 ? files : files[0] };
}

async function edit(call) {
  return { images: (await sdk(call).images.edit(...passed(await withFiles(call.arguments)))).data };
}

async function edit_stream(call) {
  const events = [];
  const asked = { stream: true, ...(await withFiles(call.arguments)) };
  for await (const { type, b64_json } of await sdk(call).images.edit(asked)) events.push({ type, b64_json });
  return { events };
}

async function models(call) {
  const ids = [];
  for await (const model of sdk(call).models.list()) ids.push(model.id);
  return { models: ids };
}

async function model(call) {
  return { models: [(await sdk(call).models.retrieve(call.arguments.model)).id] };
}

await run({ generate, later, stream, edit, edit_stream, models, model });
