import type { Answer } from "./answer.ts";
import { EbsListings, type ListingOptions } from "./ebs-listings.ts";
import type { EbsRequest } from "./ebs-access.ts";
import { EbsUploads } from "./ebs-uploads.ts";
import type { World } from "./world.ts";

/** The operation a path and method name, its snapshot and its block index. */
export interface EbsRoute {
  operation: string;
  snapshotId?: string;
  index?: string;
}

/** Finds the operation of a request; undefined when there is none. */
export function ebsRoute(method: string, path: string): EbsRoute | undefined {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  const [first, id = "", third, index] = parts;
  if (first !== "snapshots") return undefined;
  if (parts.length === 1 && method === "POST") return { operation: "StartSnapshot" };
  if (id === "completion" && parts.length === 3 && method === "POST")
    return { operation: "CompleteSnapshot", snapshotId: third ?? "" };
  if (parts.length === 3 && method === "GET") {
    if (third === "blocks") return { operation: "ListSnapshotBlocks", snapshotId: id };
    if (third === "changedblocks") return { operation: "ListChangedBlocks", snapshotId: id };
  }
  if (parts.length === 4 && third === "blocks" && index !== undefined) {
    if (method === "GET") return { operation: "GetSnapshotBlock", snapshotId: id, index };
    if (method === "PUT") return { operation: "PutSnapshotBlock", snapshotId: id, index };
  }
  return undefined;
}

/** The six operations of the EBS direct APIs over the blocks of a world. */
export class EbsEndpoint {
  readonly #world: World;
  readonly #listings: EbsListings;
  readonly #uploads: EbsUploads;

  constructor(world: World, options: ListingOptions & { keepUploads: boolean }) {
    this.#world = world;
    this.#listings = new EbsListings(world, options);
    this.#uploads = new EbsUploads(world, options.keepUploads);
  }

  /** Answers one routed request. @throws AwsError */
  async answer({ operation, snapshotId = "", index = "" }: EbsRoute, request: EbsRequest): Promise<Answer> {
    const { accountId, region } = request.caller;
    const resource = `arn:aws:ec2:${region}::snapshot/${snapshotId === "" ? "*" : snapshotId}`;
    this.#world.authorize(accountId, `ebs:${operation}`, resource);
    this.#world.settle();
    switch (operation) {
      case "StartSnapshot":
        return this.#uploads.start(request);
      case "PutSnapshotBlock":
        return this.#uploads.put(snapshotId, index, request);
      case "CompleteSnapshot":
        return this.#uploads.complete(snapshotId, request);
      case "GetSnapshotBlock":
        return this.#listings.block(snapshotId, index, request);
      case "ListSnapshotBlocks":
        return this.#listings.blocks(snapshotId, request);
      default:
        return this.#listings.changes(snapshotId, request);
    }
  }
}
