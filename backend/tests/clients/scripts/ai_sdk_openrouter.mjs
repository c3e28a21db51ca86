// The AI SDK with its provider for OpenRouter: generateImage, and images among the files of generateText and streamText.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateImage, generateText, streamText } from "ai";
import { run } from "./loop.mjs";

const provider = (call) => createOpenRouter({ baseURL: call.base_url, apiKey: call.key });

const inBase64 = (files) => ({ images: files.map((file) => ({ b64_json: file.base64 })) });

async function image(call) {
  const { model, images, prompt, ...rest } = call.arguments;
  const asked = images ? { text: prompt, images: images.map((each) => Buffer.from(each, "base64")) } : prompt;
  return inBase64((await generateImage({ model: provider(call).imageModel(model), prompt: asked, ...rest })).images);
}

function conversation(call) {
  const { model, prompt, images = [], options, ...rest } = call.arguments;
  const files = images.map((data) => ({ type: "file", mediaType: "image/png", data }));
  const messages = [{ role: "user", content: [{ type: "text", text: prompt }, ...files] }];
  return { model: provider(call).chat(model), messages, providerOptions: { openrouter: options ?? {} }, ...rest };
}

async function text(call) {
  const { files, text: sentence } = await generateText(conversation(call));
  return files.length ? inBase64(files) : { sentence };
}

async function stream(call) {
  const files = [];
  for await (const part of streamText({ ...conversation(call), onError: () => {} }).fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "file") files.push(part.file);
  }
  return inBase64(files);
}

await run({ image, text, stream });
