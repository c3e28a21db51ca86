// LangChain for JavaScript: its wrapper of image generation, and its chats.
import { ChatOpenAI, DallEAPIWrapper } from "@langchain/openai";
import { run } from "./loop.mjs";

async function generate(call) {
  const { prompt, ...rest } = call.arguments;
  const made = await new DallEAPIWrapper({ baseUrl: call.base_url, apiKey: call.key, ...rest }).invoke(prompt);
  const each = typeof made === "string" ? [{ image_url: made }] : made;
  const member = rest.dallEResponseFormat ?? "url";
  return { images: each.map(({ image_url: image }) => ({ [member]: image.url ?? image })) };
}

async function chat(call) {
  const { prompt, model, first } = call.arguments;
  const asked = { model, apiKey: call.key, configuration: { baseURL: call.base_url }, modalities: ["image", "text"] };
  const drawn = await new ChatOpenAI({ ...asked, modelKwargs: first }).invoke(prompt);
  const changed = await new ChatOpenAI(asked).invoke([["user", prompt], drawn, ["user", "Make it blue"]]);
  const images = [drawn, changed].flatMap(({ content }) => content.filter(({ type }) => type === "image"));
  return { images: images.map(({ url }) => ({ b64_json: url.replace(/^.*,/, "") })) };
}

await run({ generate, chat });
