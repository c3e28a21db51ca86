// OpenAI's SDK for Node, as its documentation calls it.
import OpenAI from "openai";
import { run } from "./loop.mjs";

const sdk = (call) => new OpenAI({ baseURL: call.base_url, apiKey: call.key });

// Headers are a second argument here, and one among the others in Python.
const passed = ({ extra_headers: headers, extra_body: body, ...rest }) => [{ ...rest, ...body }, { headers }];

async function generate(call) {
  return { images: (await sdk(call).images.generate(...passed(call.arguments))).data };
}

async function stream(call) {
  const events = [];
  for await (const { type, b64_json } of await sdk(call).images.generate({ stream: true, ...call.arguments })) {
    events.push({ type, b64_json });
  }
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

await run({ generate, stream, models, model });
