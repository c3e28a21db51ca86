// The AI SDK's generateImage, with the provider for OpenAI and with that for compatible endpoints.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import { run } from "./loop.mjs";

const decoded = (text) => text && Buffer.from(text, "base64");

async function draw(provider, { model, options, prompt, images: sent, mask, ...rest }) {
  const providerOptions = options && { openai: options, nanobanana: options };
  const asked = sent ? { text: prompt, images: sent.map(decoded), mask: decoded(mask) } : prompt;
  const { images } = await generateImage({
    model: provider.imageModel(model),
    prompt: asked,
    providerOptions,
    ...rest,
  });
  return { images: images.map((image) => ({ b64_json: image.base64 })) };
}

async function openai(call) {
  return draw(createOpenAI({ baseURL: call.base_url, apiKey: call.key }), call.arguments);
}

async function compatible(call) {
  return draw(
    createOpenAICompatible({ name: "nanobanana", baseURL: call.base_url, apiKey: call.key }),
    call.arguments,
  );
}

await run({ openai, compatible });
