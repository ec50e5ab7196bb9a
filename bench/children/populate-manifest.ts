/**
 * Gives every leaf of a job's manifest a digest of its own, as after a full copy of a disk without any repetition:
 * `populate-manifest.ts <state folder> <job>`. Runs from source, since it reaches behind the public door.
 */
import { randomFillSync } from "node:crypto";
import { openDirectoryState } from "@diskferry/core";
// oxlint-disable-next-line no-restricted-imports -- no public door makes digests up
import { JobDocument, keyOf } from "../../packages/core/src/engine/job-state.ts";
// oxlint-disable-next-line no-restricted-imports -- the same
import { ManifestBuilder } from "../../packages/core/src/manifest/manifest-builder.ts";

const LEAVES_AT_ONCE = 4096;
const DIGEST = 32;

const [folder = "", job = ""] = process.argv.slice(2);
await using store = await openDirectoryState(folder);
const lease = await store.acquire(job);
const document = await JobDocument.read(store, job, lease);
const record = document.state.record!.disks[0]!;
const { algorithm, leaf, size, leaves } = record.manifest!;
const builder = new ManifestBuilder(store, keyOf.pages(job, record.disk), { algorithm, leaf, size });
const digests = new Uint8Array(LEAVES_AT_ONCE * DIGEST);
for (let first = 0; first < leaves; first += LEAVES_AT_ONCE) {
  randomFillSync(digests);
  await builder.setMany(first, digests.subarray(0, Math.min(LEAVES_AT_ONCE, leaves - first) * DIGEST));
}
const manifest = await builder.finish();
await document.update((state) => (state.record!.disks[0]!.manifest = manifest.toJson()));
await lease.release();
