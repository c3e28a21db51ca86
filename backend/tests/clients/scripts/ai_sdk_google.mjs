// The AI SDK with its provider for Google: generateImage, and images among the files of generateText and streamText.
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { generateImage, generateText, streamText } from "ai";
import { filesOf, inBase64, promptOf } from "./ai_sdk_images.mjs";
import { run } from "./loop.mjs";

const provider = (call) => createGoogleGenerativeAI({ baseURL: `${call.base_url}beta`, apiKey: call.key });

async function image(call) {
  const { model, images, prompt, ...rest } = call.arguments;
  const asked = { model: provider(call).image(model), prompt: promptOf({ prompt, images }), ...rest };
  return inBase64((await generateImage(asked)).images);
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
  return filesOf(streamText({ ...conversation(call), onError: () => {} }).fullStream);
}

await run({ image, text, stream });
