// What all scripts share: a call is a line of JSON on standard input, its answer one on standard output.
import { createInterface } from "node:readline";

// Answers calls by these functions, by name, until there are no more.
export async function run(functions) {
  console.log = console.info = console.debug = console.error; // what a client prints is no answer
  for await (const line of createInterface({ input: process.stdin })) {
    const call = JSON.parse(line);
    const answer = await functions[call.function](call).catch((error) => ({ error: String(error) }));
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}
