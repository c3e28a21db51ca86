// LangChain's wrapper of image generation for JavaScript.
import { DallEAPIWrapper } from "@langchain/openai";
import { run } from "./loop.mjs";

async function generate(call) {
  const { prompt, ...rest } = call.arguments;
  const made = await new DallEAPIWrapper({ baseUrl: call.base_url, apiKey: call.key, ...rest }).invoke(prompt);
  const each = typeof made === "string" ? [{ image_url: made }] : made;
  const member = rest.dallEResponseFormat ?? "url";
  return { images: each.map(({ image_url: image }) => ({ [member]: image.url ?? image })) };
}

await run({ generate });
