// Google's SDK for JavaScript, as its documentation calls it.
import { GoogleGenAI } from "@google/genai";
import { run } from "./loop.mjs";

const sdk = (call) => new GoogleGenAI({ apiKey: call.key, httpOptions: { baseUrl: call.base_url.replace(/\/v1$/, "") } });

const asked = ({ prompt, model, images = [], config }) => ({
  model,
  contents: [...images.map((data) => ({ inlineData: { mimeType: "image/png", data } })), { text: prompt }],
  config,
});

function answer(responses) {
  const blocked = responses.filter((each) => each.promptFeedback).map((each) => each.promptFeedback.blockReason);
  if (blocked.length) return { blocked };
  const parts = responses.flatMap((each) => each.candidates[0].content.parts);
  return { images: parts.map((part) => ({ b64_json: part.inlineData.data })) };
}

async function generate(call) {
  return answer([await sdk(call).models.generateContent(asked(call.arguments))]);
}

async function stream(call) {
  const chunks = [];
  for await (const chunk of await sdk(call).models.generateContentStream(asked(call.arguments))) chunks.push(chunk);
  return answer(chunks);
}

async function chat(call) {
  const { model, contents, config } = asked(call.arguments);
  const talk = sdk(call).chats.create({ model, config });
  return answer([await talk.sendMessage({ message: contents }), await talk.sendMessage({ message: "Make it blue" })]);
}

async function models(call) {
  const names = [];
  for await (const model of await sdk(call).models.list()) names.push(model.name.replace("models/", ""));
  return { models: names };
}

async function model(call) {
  return { models: [(await sdk(call).models.get(call.arguments)).name.replace("models/", "")] };
}

await run({ generate, stream, chat, models, model });
