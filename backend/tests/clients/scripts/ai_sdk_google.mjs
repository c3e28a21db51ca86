// The AI SDK with its provider for Google: generateImage, and images among the files of generateText and streamText.
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { generateImage, generateText, streamText } from "ai";
import { run } from "./loop.mjs";

const provider = (call) => createGoogleGenerativeAI({ baseURL: `${call.base_url}beta`, apiKey: call.key });

const inBase64 = (files) => ({ images: files.map((file) => ({ b64_json: file.base64 })) });

async function image(call) {
  const { model, images, prompt, ...rest } = call.arguments;
  const asked = images ? { text: prompt, images: images.map((each) => Buffer.from(each, "base64")) } : prompt;
  return inBase64((await generateImage({ model: provider(call).image(model), prompt: asked, ...rest })).images);
}

function conversation(call) {
  const { model, prompt, images = [], ...rest } = call.arguments;
  const content = [
    { type: "text", text: prompt },
    ...images.map((data) => ({ type: "file", mediaType: "image/png", data })),
  ];
  return { model: provider(call)(model), messages: [{ role: "user", content }], ...rest };
}

async function text(call) {
  return inBase64((await generateText(conversation(call))).files);
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
