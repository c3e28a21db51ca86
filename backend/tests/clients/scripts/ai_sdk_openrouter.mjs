// The AI SDK with its provider for OpenRouter: generateImage, and images among the files of generateText and streamText.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateImage, generateText, streamText } from "ai";
import { filesOf, inBase64, promptOf } from "./ai_sdk_images.mjs";
import { run } from "./loop.mjs";

const provider = (call) => createOpenRouter({ baseURL: call.base_url, apiKey: call.key });

async function image(call) {
  const { model, images, prompt, ...rest } = call.arguments;
  const asked = { model: provider(call).imageModel(model), prompt: promptOf({ prompt, images }), ...rest };
  return inBase64((await generateImage(asked)).images);
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
  return filesOf(streamText({ ...conversation(call), onError: () => {} }).fullStream);
}

await run({ image, text, stream });
