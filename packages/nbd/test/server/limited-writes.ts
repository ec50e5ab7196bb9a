import { fileBackend } from "../../src/server/file-backend.ts";

/** Writes sixteen pieces at once into the file named in its argument and prints what became of each, then the third again. */
await using backend = await fileBackend(process.argv[2] ?? "");
const { signal } = new AbortController();

async function write(at: number, fill: number): Promise<string> {
  try {
    await backend.write?.(at * 10_000, Buffer.alloc(10_000, fill), { fua: false, signal });
    return "written";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

const results = await Promise.all(Array.from({ length: 16 }, (_, at) => write(at, at + 1)));
console.log(JSON.stringify([...results, await write(2, 99)]));
