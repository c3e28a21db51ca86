// What both scripts for the AI SDK share: images that were made, in base64, and those among the files of a stream.
export const inBase64 = (files) => ({ images: files.map((file) => ({ b64_json: file.base64 })) });

export const promptOf = ({ prompt, images }) =>
  images ? { text: prompt, images: images.map((each) => Buffer.from(each, "base64")) } : prompt;

export async function filesOf(stream) {
  const files = [];
  for await (const part of stream) {
    if (part.type === "error") throw part.error;
    if (part.type === "file") files.push(part.file);
  }
  return inBase64(files);
}
