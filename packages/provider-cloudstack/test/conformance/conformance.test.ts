import { expect, test } from "vitest";
import { formatConformance, runConformance } from "@diskferry/provider-testkit";
import {
  applianceSource,
  downloadSource,
  importTarget,
  localWriterTarget,
  remoteWriterTarget,
  uploadTarget,
  type Judged,
} from "./harnesses.ts";

const shapes: [string, () => Promise<Judged>][] = [
  ["local-writer-target", localWriterTarget],
  ["remote-writer-target", remoteWriterTarget],
  ["upload-target", uploadTarget],
  ["import-target", importTarget],
  ["appliance-source", applianceSource],
  ["download-source", downloadSource],
];

for (const [name, make] of shapes) {
  test(`${name}: every clause holds that can be judged, and those are the ones on record`, async () => {
    await using judged = await make();
    const text = formatConformance(await runConformance(judged.harness));
    expect(text).not.toContain("FAILED");
    await expect(text).toMatchFileSnapshot(`clauses/${name}.txt`);
  }, 600_000);
}
