import type { Wait } from "@diskferry/core/provider";
import { textIn, objectIn } from "../client/decode.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError, isLostAnswer } from "../errors.ts";

/** Where a snapshot can be downloaded from for a while. The URL is a secret: who has it has the disk. */
export interface DownloadLink {
  readonly url: URL;
  readonly format: "qcow2" | "raw";
}

/** How often the same question is asked while its answers are lost. */
const ATTEMPTS = 4;

/**
 * Asks for a link to a snapshot (`extractSnapshot`, 4.20 and later). Harmless twice: while a link lives the same one comes
 * again. @throws ProviderError UNSUPPORTED for a format other than qcow2 and raw, and for a link without TLS
 */
export async function extractLink(cloud: Cloud, snapshotId: string, wait: Wait): Promise<DownloadLink> {
  const object = `snapshot ${snapshotId}`;
  const parameters = { id: snapshotId, zoneid: await cloud.zoneId(wait) };
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await cloud.client.run("extractSnapshot", parameters, { ...wait, object });
      return linkIn(cloud, snapshotId, textIn(objectIn(result["snapshot"])["url"]) ?? textIn(result["url"]));
    } catch (error) {
      if (!isLostAnswer(error) || attempt === ATTEMPTS) throw error;
    }
  }
}

function linkIn(cloud: Cloud, snapshotId: string, text: string | undefined): DownloadLink {
  if (text === undefined || !URL.canParse(text)) {
    throw cloudstackError("UNEXPECTED", `CloudStack extracted snapshot ${snapshotId} and told no URL of it.`, {
      operation: "extractSnapshot",
    });
  }
  const url = new URL(text);
  const isPlain = url.protocol === "http:";
  if (isPlain && cloud.options.endpoint.startsWith("https:") && cloud.options.plainStorage !== true) {
    throw cloudstackError(
      "UNSUPPORTED",
      `The secondary storage machine ${url.host} gives out snapshots without TLS, so anybody on the way could read and change ` +
        `the disk. Have secstorage.encrypt.copy turned on, or allow it with plainStorage.`,
      { operation: "extractSnapshot" },
    );
  }
  if (!isPlain && url.protocol !== "https:") {
    throw cloudstackError("UNSUPPORTED", `Snapshot ${snapshotId} is given out by ${url.protocol}, not by HTTPS.`, {
      operation: "extractSnapshot",
    });
  }
  // By the name the platform gave it, never by its content: what a guest writes at the start of its disk must not decide.
  const ending = /\.([a-z0-9]+)$/i.exec(url.pathname)?.[1]?.toLowerCase() ?? "";
  if (ending === "qcow2") return { url, format: "qcow2" };
  if (ending === "raw" || ending === "img") return { url, format: "raw" };
  throw cloudstackError(
    "UNSUPPORTED",
    `Snapshot ${snapshotId} is given out in the format ${JSON.stringify(ending)}; qcow2 and raw are read. Set source.read to ` +
      `"appliance".`,
    { operation: "extractSnapshot" },
  );
}
