import { expect, test } from "vitest";
import { Unflushed } from "./unflushed.ts";

function storage(): { bytes: Uint8Array; unflushed: Unflushed } {
  const bytes = new Uint8Array(1024);
  const unflushed = new Unflushed({
    read: (offset, length) => bytes.subarray(offset, offset + length),
    write: (offset, part) => bytes.set(part, offset),
  });
  return { bytes, unflushed };
}

const write = (bytes: Uint8Array, value: number) => (): Promise<void> => {
  bytes.fill(value);
  return Promise.resolve();
};

test("what was not flushed is lost, what was is not", async () => {
  const { bytes, unflushed } = storage();
  await unflushed.changing(0, 1024, write(bytes, 1));
  unflushed.flushing()();
  await unflushed.changing(0, 1024, write(bytes, 2));
  unflushed.lose(() => 0);
  expect(bytes).toEqual(new Uint8Array(1024).fill(1));
});

test("a write that failed and was flushed over takes nothing back", async () => {
  const { bytes, unflushed } = storage();
  const failing = unflushed.changing(0, 1024, () => Promise.reject(new Error("refused")));
  await expect(failing).rejects.toThrow("refused");
  await unflushed.changing(0, 1024, write(bytes, 1));
  unflushed.flushing()();
  unflushed.lose(() => 0);
  expect(bytes).toEqual(new Uint8Array(1024).fill(1));
});
